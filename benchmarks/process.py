"""Programs of `benchmarks.programs` in processes of their own, so that no subject shares caches or memory.

A program gets its arguments as JSON in its first argument and answers with one line of JSON on standard output;
those that serve rounds read further lines of JSON from standard input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

REPOSITORY = Path(__file__).parent.parent
SAMPLE_SECONDS = 0.02


class Program:
    """A running program; use it as a context, which ends it."""

    def __init__(self, name: str, arguments: Mapping[str, Any], python: Path | None = None) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [python or sys.executable, "-m", f"benchmarks.programs.{name}", json.dumps(arguments)],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin
        assert self._process.stdout
        self._to_program, self._from_program = self._process.stdin, self._process.stdout

    @property
    def pid(self) -> int:
        """The program's process."""
        return self._process.pid

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Send a line of JSON and return the answer."""
        self._to_program.write(json.dumps(request) + "\n")
        self._to_program.flush()
        return self.answer()

    def answer(self) -> Any:
        """Wait for the next answer; `RuntimeError` when the program ends without one."""
        line = self._from_program.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with code {self._process.wait()}; its message stands above")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        with suppress(BrokenPipeError):
            self._to_program.close()
        self._process.wait()
        self._from_program.close()


def run_program(name: str, **arguments: Any) -> Any:
    """Run a program to its end and return its answer."""
    with Program(name, arguments) as program:
        return program.answer()


def run_weighed(name: str, **arguments: Any) -> tuple[Any, int]:
    """Run a program to its end; return its answer and the peak memory of its process tree in bytes."""
    with Program(name, arguments) as program, _Scale(program.pid) as scale:
        answer = program.answer()
    return answer, scale.peak


class _Scale:
    """Samples the resident memory of a process and all its descendants; shared pages count in each of them."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._root = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            total = 0
            with suppress(psutil.NoSuchProcess):
                for process in [self._root, *self._root.children(recursive=True)]:
                    with suppress(psutil.NoSuchProcess):
                        total += process.memory_info().rss
            self.peak = max(self.peak, total)
