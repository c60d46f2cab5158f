"""Large intermediate files that the workers of one machine make once and share.

The folder is a cache: every file in it can be made again, and it may be deleted when no worker runs.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from numpy.typing import NDArray

from storage.locks import FileLock

_LOCKS = 256
_GENERATIONS = 3


@dataclass(frozen=True, slots=True)
class ScratchFile:
    """How to make one file: its size in bytes, and a function that writes it to a file descriptor."""

    size: int
    write: Callable[[int], None]


class Scratch:
    """Files by key, open for reading until `close`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, int] = {}

    def prepare(self, files: Mapping[str, ScratchFile]) -> None:
        """Open these files, making those that are not there; processes that want the same ones share the work.

        Files of earlier calls are deleted when the folder holds more than three times what this call needs.
        """
        waiting = [key for key in files if key not in self._open]
        if not waiting:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._evict(files, _GENERATIONS * sum(file.size for file in files.values()))
        while waiting:
            busy = [key for key in waiting if not self._obtain(key, files[key], wait=False)]
            if len(busy) == len(waiting):
                key = busy.pop()
                self._obtain(key, files[key], wait=True)
            waiting = busy

    def read(self, key: str, offset: int, out: NDArray) -> None:
        """Fill a contiguous array from a prepared file."""
        view = out.data.cast("B")
        done = 0
        while done < len(view):
            count = os.preadv(self._open[key], [view[done:]], offset + done)
            if not count:
                raise EOFError(f"{self._folder}: a scratch file ends early; delete the folder and run again")
            done += count

    def close(self) -> None:
        """Close every file; the files stay for others."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _obtain(self, key: str, file: ScratchFile, *, wait: bool) -> bool:
        """Open or make a file; False when another process is making it and `wait` is not set."""
        if self._reuse(key):
            return True
        lock = FileLock(self._folder / f"{int(key[:8], 16) % _LOCKS}.lock")
        if wait:
            lock.acquire()
        elif not lock.try_acquire():
            return False
        with lock:
            if not self._reuse(key):
                self._make(key, file)
        return True

    def _reuse(self, key: str) -> bool:
        try:
            self._open[key] = os.open(self._folder / f"{key}.raw", os.O_RDONLY)
        except FileNotFoundError:
            return False
        os.utime(self._open[key])
        return True

    def _make(self, key: str, file: ScratchFile) -> None:
        temporary = self._folder / f"{uuid.uuid4().hex}.tmp"
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            file.write(descriptor)
            temporary.rename(self._folder / f"{key}.raw")
        except BaseException:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        self._open[key] = descriptor

    def _evict(self, needed: Collection[str], limit: int) -> None:
        found: list[tuple[int, int, Path]] = []
        for path in self._folder.glob("*.raw"):
            try:
                stat = path.stat()
            except FileNotFoundError:  # another process was faster
                continue
            found.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= limit:
                return
            if path.stem not in needed:
                path.unlink(missing_ok=True)
                total -= size
