"""Many cases of each reader, in processes that may crash, hang or run out of memory; what was found is remembered."""

from __future__ import annotations

import hashlib
import mmap
import multiprocessing
import os
import resource
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from pydantic import BaseModel

from storage.files import write_atomic
from tests.fuzz.case import SLOW, Reader, Verdict, run_case
from tests.imports import import_graph, modules

ROOM = 2**30
"""Bytes that a process may have beyond what its libraries take."""
WARM_UP = 20
"""Cases of a process before its memory is limited, so that libraries are loaded and have what they always take."""
PATIENCE = 60.0
"""Seconds by the clock after which a case that does not even compute is ended."""
HERE = Path(__file__).parent


class Fault(BaseModel):
    """Cases that went wrong at one place."""

    what: str
    first: int
    """Number of the first such case."""
    cases: int = 1


class Found(BaseModel):
    """What was found with one reader."""

    reader: str
    code: str
    next: int = 0
    """The number of the case that comes next."""
    results: int = 0
    sentences: int = 0
    unmade: int = 0
    """Cases that could not be written; they count as nothing."""
    seconds: float = 0.0
    slowest: float = 0.0
    slowest_case: int = 0
    faults: dict[str, Fault] = {}

    @property
    def failures(self) -> int:
        """Cases that went wrong."""
        return sum(fault.cases for fault in self.faults.values())

    @property
    def cases(self) -> int:
        """Cases that were run."""
        return self.results + self.sentences + self.failures

    def add(self, number: int, verdict: Verdict) -> None:
        """Count a case."""
        self.next = number + 1
        self.seconds += verdict.seconds
        if verdict.seconds > self.slowest:
            self.slowest, self.slowest_case = verdict.seconds, number
        match verdict.outcome:
            case "result":
                self.results += 1
            case "sentence":
                self.sentences += 1
            case "unmade":
                self.unmade += 1
            case "fault" if verdict.where in self.faults:
                self.faults[verdict.where].cases += 1
            case "fault":
                self.faults[verdict.where] = Fault(what=verdict.what, first=number)


@cache
def _product() -> tuple[dict[str, set[str]], dict[str, Path]]:
    """Return which modules of the product import which, and where they are."""
    return import_graph(), modules()


class Campaign:
    """Runs cases of readers and keeps what was found, a file for each, as long as the code stays."""

    def __init__(self, work: Path, say: Callable[[str], None]) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self._work, self._say = work, say
        self._once_more: set[tuple[str, int]] = set()

    def found(self, reader: Reader) -> Found:
        """Return what is known of a reader with the code as it is."""
        code = self._digest(reader)
        known = load(self._path(reader))
        return known if known and known.code == code else Found(reader=reader.name, code=code)

    def run(self, reader: Reader, cases: int, seconds: float) -> Found:
        """Run more cases, up to so many in all and for so long; a process that dies is a fault of its case."""
        found = self.found(reader)
        end = time.monotonic() + seconds
        while found.next < cases and time.monotonic() < end:
            found = self._process(reader, found, cases, end)
        return found

    def _process(self, reader: Reader, found: Found, cases: int, end: float) -> Found:
        """Run cases in one process, until it has run them all or dies."""
        place = mmap.mmap(-1, 16)
        struct.pack_into("<qd", place, 0, found.next, time.monotonic())
        context = multiprocessing.get_context("fork")
        child = context.Process(target=_child, args=(reader, found, cases, end, place, self._path(reader)))
        child.start()
        while child.is_alive():
            child.join(1.0)
            number, since = struct.unpack_from("<qd", place, 0)
            if time.monotonic() - since > PATIENCE:
                child.kill()
                child.join()
        number, _ = struct.unpack_from("<qd", place, 0)
        found = load(self._path(reader)) or found
        if child.exitcode == -signal.SIGKILL and (reader.name, number) not in self._once_more:
            self._once_more.add((reader.name, number))  # the machine may have stood still, not the case
        elif child.exitcode:
            found = self._died(reader, found, number, child.exitcode)
        return found

    def _died(self, reader: Reader, found: Found, number: int, status: int) -> Found:
        """Count the case that a process died of. Cases since it saved last are run again."""
        name = signal.Signals(-status).name if status < 0 else f"status {status}"
        slow = status in (-signal.SIGPROF, -signal.SIGKILL)
        verdict = Verdict("fault", f"hangs ({name})" if slow else f"ended the process ({name})", f"{name} {number}")
        self._say(f"{reader.name} {number}: {verdict.what}")
        if number > found.next:
            skipped = found.model_copy(deep=True)
            skipped.next = number  # the cases between died unsaved with their process: they count as nothing
            found = skipped
        found.add(number, verdict)
        write_atomic(self._path(reader), found.model_dump_json())
        return found

    def _path(self, reader: Reader) -> Path:
        return self._work / f"{reader.name}.json"

    def _digest(self, reader: Reader) -> str:
        """Return the digest of the code that reads, and of that which makes its cases."""
        graph, files = _product()
        reached, queue = set(reader.modules), list(reader.modules)
        while queue:
            for name in graph[queue.pop()] - reached:
                reached.add(name)
                queue.append(name)
        maker = Path(sys.modules[reader.make.__module__].__file__ or "")
        paths = [*(files[name] for name in sorted(reached)), HERE / "case.py", HERE / "mutate.py", maker]
        return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:12]


def load(path: Path) -> Found | None:
    """Return what was found, by its file."""
    return Found.model_validate_json(path.read_bytes()) if path.exists() else None


def _child(reader: Reader, found: Found, cases: int, end: float, place: mmap.mmap, path: Path) -> None:
    """Run cases and save what comes of them every second."""
    with sandbox() as folder:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries in C complain there of every case
        saved, limited_at = time.monotonic(), found.next + WARM_UP
        while found.next < cases and time.monotonic() < end:
            struct.pack_into("<qd", place, 0, found.next, time.monotonic())
            if found.next == limited_at:
                _limit_memory()
            signal.setitimer(signal.ITIMER_PROF, 2 * SLOW)  # ends the process, were it in a library
            found.add(found.next, run_case(reader, found.next, folder))
            if time.monotonic() - saved > 1:
                write_atomic(path, found.model_dump_json())
                saved = time.monotonic()
        signal.setitimer(signal.ITIMER_PROF, 0)
        write_atomic(path, found.model_dump_json())


def _limit_memory() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()  # of private memory
    resource.setrlimit(resource.RLIMIT_DATA, (size + ROOM, resource.RLIM_INFINITY))


@contextmanager
def sandbox() -> Iterator[Path]:
    """Yield an empty folder, in memory where the system has such, which is home and working folder meanwhile."""
    memory = Path("/dev/shm")
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="millrace-fuzz-", dir=memory if memory.is_dir() else None) as name:
        folder = Path(name).resolve()
        os.chdir(folder)
        try:
            yield folder
        finally:
            os.chdir(before)


def tally(found: list[Found]) -> dict[str, object]:
    """Count cases, by reader and in all."""
    return {
        "readers": [
            {**one.model_dump(include={"reader", "results", "sentences"}), "cases": one.cases, "failures": one.failures,
             "slowest": round(one.slowest, 2), "faults": {k: f.model_dump() for k, f in one.faults.items()}}
            for one in found
        ],
        "cases": sum(one.cases for one in found),
        "failures": sum(one.failures for one in found),
    }  # fmt: skip
