"""Kernel locks: held by a process, freed when it dies, whatever it died of."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

from storage.files import is_writable

IN_KEY = False


class FileLock:
    """An advisory `flock` on a file, exclusive or shared, usable as a context manager.

    The kernel drops it when its holder ends, so a dead holder blocks nobody. An exclusive holder writes its
    process id into the file, so that those who wait can say for whom. Where no file can be made, one that is there is
    locked all the same, and without one there is nothing to guard: nobody can write there.
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self.path = path
        self._mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._file: IO[str] | None = None

    def try_acquire(self) -> bool:
        """Take the lock if it is free right now."""
        return self._acquire(fcntl.LOCK_NB)

    def acquire(self, on_wait: Callable[[str], None] | None = None) -> None:
        """Take the lock, waiting for it; `on_wait` is told the holder's process id before the wait."""
        if self._acquire(fcntl.LOCK_NB):
            return
        if on_wait:
            on_wait(self.holder())
        self._acquire(0)

    def _acquire(self, flags: int) -> bool:
        assert self._file is None, "lock taken twice"
        writable = is_writable(self.path.parent)
        if writable:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        elif not self.path.exists():
            return True
        file = self.path.open("a+" if writable else "r")
        try:
            fcntl.flock(file, self._mode | flags)
        except BlockingIOError:
            file.close()
            return False
        if self._mode == fcntl.LOCK_EX and writable:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        self._file = file
        return True

    def holder(self) -> str:
        """Return the process id that the last exclusive holder left, or `unknown`."""
        try:
            return self.path.read_text() or "unknown"
        except FileNotFoundError:
            return "unknown"

    def release(self) -> None:
        """Give the lock back; without effect when it is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> FileLock:
        if self._file is None:
            self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
