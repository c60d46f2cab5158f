"""Raw input files: found on disk, hashed once, remembered by (path, size, mtime, inode)."""

from __future__ import annotations

import glob
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from storage.files import is_writable
from storage.hashing import digest, file_sha256

IN_KEY = False


Stamp = tuple[int, int, int]
"""Size, time of the last change in nanoseconds, and inode: another one where a file was written again or replaced."""


def stamp_of(path: Path) -> Stamp:
    """Return a file's stamp."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def require_unchanged(path: Path, stamp: Stamp | None) -> None:
    """Refuse a file that is no longer the one that was hashed; `None` for files that nobody else writes."""
    if stamp is None:
        return
    if not path.exists():
        raise ValueError(f"{path} is no longer there; put it back or run again")
    if stamp_of(path) != tuple(stamp):
        raise ValueError(f"{path} was changed after it had been hashed; run again when nothing writes to it any more")


@dataclass(frozen=True, slots=True)
class RawFile:
    """One raw file, the digest of its content, and what it looked like when it was hashed."""

    path: Path
    size: int
    sha256: str
    stamp: Stamp | None = None


class RawInput:
    """A set of raw files that stages take as input; equal contents are equal inputs, whatever their names."""

    def __init__(self, name: str, files: Sequence[RawFile]) -> None:
        self.name = name
        self.files = tuple(sorted(files, key=lambda f: (f.sha256, str(f.path))))
        self.fingerprint = digest(sorted({f.sha256 for f in self.files}))

    def paths(self) -> dict[str, Path]:
        """Return one path per content, by its SHA-256."""
        return {f.sha256: f.path for f in reversed(self.files)}

    def require_unchanged(self) -> None:
        """Refuse files that are no longer those that were hashed: what was made of them must not pass for theirs."""
        for file in self.files:
            require_unchanged(file.path, file.stamp)


class FoundFiles(list[Path]):
    """Files in a folder of the user's; `hidden` are those that were passed over, by their own name or a folder's."""

    def __init__(self, paths: Iterable[Path] = (), hidden: Iterable[Path] = ()) -> None:
        super().__init__(paths)
        self.hidden = tuple(hidden)


def visible(paths: Iterable[Path], below: Path) -> FoundFiles:
    """Pass over files that have a hidden name, or lie in a hidden folder, below a folder."""
    shown: list[Path] = []
    hidden: list[Path] = []
    for path in paths:
        inside = path.relative_to(below).parts if path.is_relative_to(below) else ()
        (hidden if any(part.startswith(".") for part in inside) else shown).append(path)
    return FoundFiles(shown, hidden)


def find_files(patterns: Iterable[str], accept: Callable[[Path], bool]) -> FoundFiles:
    """Expand files, folders and globs to sorted absolute paths, each once.

    Folders are searched recursively for files that `accept` takes; what is hidden there, or matches a glob only if
    hidden names do, is passed over. A pattern that matches nothing is a `ValueError`: a silent empty input is worse
    than a stop.
    """
    found: set[Path] = set()
    hidden: set[Path] = set()
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            files = visible((p for p in path.rglob("*") if p.is_file()), below=path)
            hits = [p for p in files if accept(p)]
        else:
            files = FoundFiles([path]) if path.is_file() else _matches(str(path))
            hits = files
        if not hits:
            also = f"; hidden ones do not count ({len(files.hidden)})" if files.hidden else ""
            raise ValueError(
                f"source.paths: {pattern!r} matches no file of the right kind (seen from {Path.cwd()}){also}; correct "
                "the path or leave it out"
            )
        found.update(Path(os.path.abspath(p)) for p in hits)
        hidden.update(Path(os.path.abspath(p)) for p in files.hidden)
    return FoundFiles(sorted(found), sorted(hidden - found))


def _matches(pattern: str) -> FoundFiles:
    """Return the files that match a glob, whose wildcards stand for no hidden name."""
    shown, every = (glob.glob(pattern, recursive=True, include_hidden=also) for also in (False, True))
    hidden = set(every) - set(shown)
    return FoundFiles(*([Path(p) for p in names if Path(p).is_file()] for names in (shown, hidden)))


TABLE = "CREATE TABLE IF NOT EXISTS raw (path TEXT PRIMARY KEY, size INT, mtime_ns INT, inode INT, sha256 TEXT)"


class RawIndex:
    """The memory of raw files' digests, an SQLite file that many processes may use at once; it may be read-only."""

    def __init__(self, path: Path) -> None:
        self._path, self._writable = path, is_writable(path.parent)
        if self._writable:
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as db, db:
                db.execute(TABLE)

    def _connect(self) -> sqlite3.Connection:
        if self._writable:
            return sqlite3.connect(self._path, timeout=60)
        if self._path.exists():
            return sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True)
        db = sqlite3.connect(":memory:")
        db.execute(TABLE)
        return db

    def split(self, paths: Sequence[Path]) -> tuple[list[RawFile], list[Path]]:
        """Return the files whose digest is remembered and still holds, and the others."""
        with closing(self._connect()) as db:
            remembered = {
                path: (size, mtime, inode, sha) for path, size, mtime, inode, sha in db.execute("SELECT * FROM raw")
            }
        known: list[RawFile] = []
        unknown: list[Path] = []
        for path in paths:
            stamp = stamp_of(path)
            entry = remembered.get(str(path))
            if entry and entry[:3] == stamp:
                known.append(RawFile(path, stamp[0], entry[3], stamp))
            else:
                unknown.append(path)
        return known, unknown

    def read(
        self,
        name: str,
        paths: Sequence[Path],
        *,
        deep: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> RawInput:
        """Return the input that these files make, hashing those that are new or changed (`deep`: all)."""
        known, unknown = ([], list(paths)) if deep else self.split(paths)
        fresh: list[RawFile] = []
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for batch in batched(unknown, 256):
                hashed = list(pool.map(_hash, batch))
                self._remember(hashed)
                fresh.extend(hashed)
                if on_progress:
                    on_progress(len(fresh), len(unknown))
        return RawInput(name, known + fresh)

    def _remember(self, hashed: Sequence[RawFile]) -> None:
        if not self._writable:
            return
        with closing(self._connect()) as db, db:
            db.executemany(
                "INSERT OR REPLACE INTO raw VALUES (?, ?, ?, ?, ?)",
                [(str(file.path), *file.stamp, file.sha256) for file in hashed if file.stamp],
            )


def _hash(path: Path) -> RawFile:
    before = stamp_of(path)
    try:
        sha = file_sha256(path)
    except PermissionError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); change its permissions or leave it out") from error
    if before != stamp_of(path):
        raise ValueError(f"{path} changed while it was read; wait until its download has finished and run again")
    return RawFile(path, before[0], sha, before)


def batched(items: Sequence[Path], size: int) -> Iterable[Sequence[Path]]:
    """Cut a sequence into runs of at most `size`; `itertools.batched` of Python 3.12."""
    return (items[i : i + size] for i in range(0, len(items), size))
