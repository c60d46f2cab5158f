"""`map_units`: one way to fan work out, inline, over local processes, or over a Dask cluster."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from storage.assets import Unit, Workspace
from storage.manifest import UnitRecord

IN_KEY = False


def cores() -> int:
    """Return how many cores this process may use; macOS says only how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class UnitOutput:
    """What a unit function wrote (paths relative to the workspace) and reports (small, JSON)."""

    files: Sequence[str]
    result: Mapping[str, Any] = field(default_factory=dict)


UnitFunction = Callable[[Path, Unit], UnitOutput]


@dataclass(frozen=True, slots=True)
class Workers:
    """Where units run: `inline`, in `processes`, or on the Dask scheduler at `address`."""

    kind: str
    processes: int = 1
    address: str = ""

    @classmethod
    def parse(cls, text: str) -> Workers:
        """Read `auto`, `inline`, a number of local processes, or a Dask scheduler's address.

        >>> Workers.parse("4").processes
        4
        """
        if text == "auto":
            count = cores()
            return cls("processes", count) if count > 1 else cls("inline")
        if text == "inline":
            return cls("inline")
        if text.isdigit() and int(text) > 0:
            return cls("processes", int(text))
        if "://" in text:
            return cls("dask", address=text)
        raise ValueError(
            f"workers: {text!r} is not understood; write auto, inline, a number of processes, or the address of a "
            "Dask scheduler such as tcp://host:8786"
        )

    def __str__(self) -> str:
        return self.address or (f"{self.processes} processes" if self.kind == "processes" else "inline")


def map_units(
    function: UnitFunction,
    workspace: Workspace,
    units: Sequence[Unit],
    workers: Workers,
    on_done: Callable[[UnitRecord], None],
    on_tick: Callable[[], None] = lambda: None,
) -> None:
    """Run `function(folder, unit)` for every unit and enter each into the workspace's ledger as it ends.

    The process that did a unit writes its ledger entry, so a kill loses only units in flight. The first error stops
    the rest and is raised here; a killed worker is a `ChildProcessError`. `function` must be importable by name; on
    Dask the workspace's folder must be on a file system that the workers share. `on_tick` is called about every second
    while local processes work.
    """
    run = _RunUnit(function, workspace)
    if workers.kind == "inline" or not units:
        for unit in units:
            on_done(run(unit))
    elif workers.kind == "processes":
        _in_processes(run, units, min(workers.processes, len(units)), on_done, on_tick)
    else:
        _on_dask(run, units, workers.address, on_done)


@dataclass(frozen=True, slots=True)
class _RunUnit:
    """A unit function bound to its workspace; travels to worker processes."""

    function: UnitFunction
    workspace: Workspace

    def __call__(self, unit: Unit) -> UnitRecord:
        output = self.function(self.workspace.folder, unit)
        return self.workspace.record(unit, output.files, output.result)


def _in_processes(
    run: _RunUnit,
    units: Sequence[Unit],
    count: int,
    on_done: Callable[[UnitRecord], None],
    on_tick: Callable[[], None],
) -> None:
    pool = ProcessPoolExecutor(
        count, multiprocessing.get_context("spawn"), initializer=die_with_parent, initargs=(os.getpid(),)
    )
    waiting = iter(units)

    def submit(most: int) -> set[Future[UnitRecord]]:
        with deaf_to_interrupts():
            return {pool.submit(run, unit) for unit in islice(waiting, most)}

    try:
        with children.of_pool(pool):
            running = submit(2 * count)
            while running:
                done, running = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                on_tick()
                running |= submit(len(done))
                for future in done:
                    on_done(future.result())
    except BrokenProcessPool:
        if children.ended:
            raise KeyboardInterrupt from None
        raise ChildProcessError(
            "a worker process was killed, perhaps for want of memory; finished units are kept: run again, with fewer "
            "workers if memory was short"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _on_dask(run: _RunUnit, units: Sequence[Unit], address: str, on_done: Callable[[UnitRecord], None]) -> None:
    from distributed import Client, as_completed

    try:
        client = Client(address, timeout="20s", set_as_default=False)
    except OSError as error:
        raise ValueError(
            f"workers: no Dask scheduler answers at {address} ({error}); start one or correct it"
        ) from None
    with client, client.as_current():
        width = 2 * max(1, sum(client.nthreads().values()))
        waiting = iter(units)
        running = as_completed([client.submit(run, unit, pure=False) for unit in islice(waiting, width)])
        for future in running:
            for unit in islice(waiting, 1):
                running.add(client.submit(run, unit, pure=False))
            on_done(future.result())


class Running(Protocol):
    """A process that can be killed."""

    returncode: Any
    """The exit status, once whoever waits for it knows it."""

    def kill(self) -> None:
        """End it."""


Process = TypeVar("Process", bound=Running)


class Children:
    """Processes and threads that work for this process, so that Ctrl-C, which only its main thread hears, ends them."""

    def __init__(self) -> None:
        self._running: set[Running] = set()
        self._pools: set[ProcessPoolExecutor] = set()
        self._threads: set[int] = set()
        self._lock = threading.RLock()  # a signal may come while the main thread holds it
        self.ended = False

    def start(self, begin: Callable[[], Process]) -> Process:
        """Let a process begin; none does any more once they have been ended."""
        if self.ended:
            raise KeyboardInterrupt
        process = begin()
        with self._lock:
            self._running = {child for child in self._running if child.returncode is None} | {process}
        return process

    @contextlib.contextmanager
    def of_pool(self, pool: ProcessPoolExecutor) -> Iterator[None]:
        """Count the processes of a pool in; an interrupted block kills them, whatever they work on."""
        self._pools.add(pool)
        try:
            yield
        except Exception:
            raise
        except BaseException:
            _kill_workers(pool)
            raise
        finally:
            self._pools.discard(pool)

    def in_thread(self, call: Callable[[], Any]) -> Any:
        """Make a call that `end` interrupts, in a thread other than the main one."""
        with self._lock:
            if self.ended:
                raise KeyboardInterrupt
            self._threads.add(threading.get_ident())
        try:
            return call()
        finally:
            with self._lock:
                self._threads.discard(threading.get_ident())

    def threads_work(self) -> bool:
        """Whether a thread still makes a call."""
        return bool(self._threads)

    def end(self) -> None:
        """Kill all processes, and raise KeyboardInterrupt in all threads, as soon as each is in Python code again."""
        with self._lock:
            threads = set() if self.ended else set(self._threads)
            self.ended = True
            for thread in threads - {threading.get_ident()}:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))
        for process in self._running:
            process.kill()
        for pool in list(self._pools):
            _kill_workers(pool)


def _kill_workers(pool: ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):
        process.kill()


children = Children()


@contextlib.contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Let processes that this thread starts in the block never hear of Ctrl-C, which is their parent's business."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def die_with_parent(parent: int) -> None:
    """Make this process end when its parent does, however the parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
