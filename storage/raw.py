"""Raw input files: found on disk, hashed once, remembered by (path, size, mtime, inode)."""

from __future__ import annotations

import errno
import glob
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from storage.files import is_full, is_writable, readable
from storage.hashing import digest, file_sha256

IN_KEY = False

ZARR = "is a Zarr folder; write it to a file with `xarray.open_zarr(...).to_netcdf(...)`"
TOLD = 3


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

    def __init__(
        self, name: str, files: Sequence[RawFile], passed: Sequence[str] = (), named: Collection[Path] = ()
    ) -> None:
        self.name = name
        self.passed = tuple(passed)
        """What was found beside the files and not used, each with its reason."""
        self.named = tuple(sorted({f.sha256 for f in files if f.path in named}))
        """The contents of files that the user named one by one, not by a folder or glob."""
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
    """Files in a folder of the user's; `hidden` are those that were passed over, by their own name or a folder's.

    `passed` is what else was found and not used, each with its reason; `named` are those that were named themselves.
    """

    def __init__(
        self,
        paths: Iterable[Path] = (),
        hidden: Iterable[Path] = (),
        passed: Iterable[tuple[Path, str]] = (),
        named: Iterable[Path] = (),
    ) -> None:
        super().__init__(paths)
        self.hidden = tuple(hidden)
        self.passed = tuple(passed)
        self.named = frozenset(named)

    def told(self) -> str:
        """Say what was found and not used: how much, and the first few by name; empty where there is nothing."""
        if not self.passed:
            return ""
        return f"{len(self.passed)} found there and not used: {told([f'{path} {why}' for path, why in self.passed])}"


def told(sentences: Sequence[str]) -> str:
    """Return the first few of some sentences, and how many there are besides."""
    more = [f"and {len(sentences) - TOLD} more"] if len(sentences) > TOLD else []
    return "; ".join([*sentences[:TOLD], *more])


def visible(paths: Iterable[Path], below: Path) -> FoundFiles:
    """Pass over files that have a hidden name, or lie in a hidden folder, below a folder."""
    shown: list[Path] = []
    hidden: list[Path] = []
    for path in paths:
        (hidden if is_hidden(path, below) else shown).append(path)
    passed = paths.passed if isinstance(paths, FoundFiles) else ()
    return FoundFiles(shown, hidden, [(path, reason) for path, reason in passed if not is_hidden(path, below)])


def is_hidden(path: Path, below: Path) -> bool:
    """Whether a file, or a folder that it is in, has a hidden name below a folder."""
    inside = path.relative_to(below).parts if path.is_relative_to(below) else ()
    return any(part.startswith(".") for part in inside)


def find_files(
    patterns: Iterable[str],
    accept: Callable[[Path], bool],
    why: Callable[[Path], str] = lambda path: "is of another kind",
    unreadable: Literal["error", "skip"] = "error",
    field: str = "source.paths",
) -> FoundFiles:
    """Expand files, folders and globs to sorted absolute paths, each once.

    Folders are searched recursively for files that `accept` takes; of all others, `why` says what they are. What is
    hidden there, or matches a glob only if hidden names do, is passed over. A pattern that matches nothing is a
    `ValueError`: a silent empty input is worse than a stop; so is a file that nobody may read, unless it is skipped. It
    is told with the `field` of the configuration.
    """
    found: set[Path] = set()
    hidden: set[Path] = set()
    passed: dict[Path, str] = {}
    named: set[Path] = set()
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            files = inside(path)
            others = sorted(((p, why(p)) for p in files if not accept(p)), key=lambda other: other[1])
        elif path.is_file():
            files, others = FoundFiles([path]), []
            named.add(Path(os.path.abspath(path)))
        else:
            files, others = _matches(str(path)), []
        taken = set(files) - {p for p, _ in others}
        closed = [(p, "cannot be read: it is closed to you") for p in sorted(taken) if not os.access(p, os.R_OK)]
        if closed and unreadable == "error":
            raise ValueError(f"{closed[0][0]} {closed[0][1]}; change its permissions or leave it out")
        here = FoundFiles(taken - {p for p, _ in closed}, files.hidden, [*files.passed, *closed, *others])
        if not here:
            also = f"; hidden ones do not count ({len(files.hidden)})" if files.hidden else ""
            also += f"; {told}" if (told := here.told()) else ""
            raise ValueError(
                f"{field}: {pattern!r} matches no file of the right kind (seen from {Path.cwd()}){also}; correct "
                "the path or leave it out"
            )
        found.update(Path(os.path.abspath(p)) for p in here)
        hidden.update(Path(os.path.abspath(p)) for p in here.hidden)
        passed |= {Path(os.path.abspath(p)): reason for p, reason in here.passed}
    left = [(p, reason) for p, reason in passed.items() if p not in found]
    return FoundFiles(sorted(found), sorted(hidden - found), left, named)


def inside(folder: Path) -> FoundFiles:
    """Walk a folder, and the folders that it links to; name what no walk can enter, and stores that are folders."""
    if _is_zarr(folder):
        return FoundFiles(passed=[(folder, ZARR)])
    files: list[Path] = []
    passed: list[tuple[Path, str]] = []
    seen: set[str] = set()

    def refused(error: OSError) -> None:
        passed.append((Path(error.filename), f"cannot be entered ({error.strerror})"))

    for name, folders, names in os.walk(folder, onerror=refused, followlinks=True):
        here = Path(name)
        stores = [inner for inner in folders if _is_zarr(here / inner)]
        passed += [(here / inner, ZARR) for inner in sorted(stores)]
        seen.add(os.path.realpath(name))
        folders[:] = [f for f in sorted(folders) if f not in stores and os.path.realpath(here / f) not in seen]
        for path in (here / inner for inner in sorted(names)):
            if path.is_file():
                files.append(path)
            else:
                passed.append((path, "is a link to nothing" if path.is_symlink() else "is no file"))
    return visible(FoundFiles(files, passed=passed), below=folder)


def _is_zarr(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("zarr.json", ".zgroup", ".zarray"))


def _matches(pattern: str) -> FoundFiles:
    """Return the files that match a glob, whose wildcards stand for no hidden name."""
    shown, every = (glob.glob(pattern, recursive=True, include_hidden=also) for also in (False, True))
    hidden = set(every) - set(shown)
    files, behind = ([Path(p) for p in names if Path(p).is_file()] for names in (shown, hidden))
    others = [Path(p) for p in sorted(set(shown) - {str(f) for f in files})] if "**" not in pattern else []
    links = [Path(pattern)] if Path(pattern).is_symlink() and not Path(pattern).exists() else []
    return FoundFiles(files, behind, [(p, _other(p)) for p in dict.fromkeys([*links, *others])])


def _other(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return "is a link to nothing"
    if _is_zarr(path):
        return ZARR
    return "is a folder: name it, and it is searched"


TABLE = "CREATE TABLE IF NOT EXISTS raw (path TEXT PRIMARY KEY, size INT, mtime_ns INT, inode INT, sha256 TEXT)"


class RawIndex:
    """The memory of raw files' digests, an SQLite file that many processes may use at once; it may be read-only."""

    def __init__(self, path: Path) -> None:
        self._path, self._writable = path, is_writable(path.parent)
        if self._writable:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._writing() as db:
                db.execute(TABLE)

    def _connect(self) -> sqlite3.Connection:
        if self._writable:
            return sqlite3.connect(self._path, timeout=60)
        if self._path.exists():
            return sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True)
        db = sqlite3.connect(":memory:")
        db.execute(TABLE)
        return db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection whose changes are kept; a full disk is the `OSError` that it is elsewhere."""
        try:
            with closing(self._connect()) as db, db:
                yield db
        except sqlite3.OperationalError as error:
            if is_full(self._path.parent):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path)) from error
            raise

    def split(self, paths: Sequence[Path]) -> tuple[list[RawFile], list[Path]]:
        """Return the files whose digest is remembered and still holds, and the others."""
        with closing(self._connect()) as db:
            remembered = {
                path: (size, mtime, inode, sha) for path, size, mtime, inode, sha in db.execute("SELECT * FROM raw")
            }
        known: list[RawFile] = []
        unknown: list[Path] = []
        for path in paths:
            with readable(path):
                stamp = stamp_of(path)
            entry = remembered.get(str(path))
            if entry and entry[:3] == stamp and os.access(path, os.R_OK):
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
        if not isinstance(paths, FoundFiles):
            return RawInput(name, known + fresh)
        return RawInput(name, known + fresh, [f"{path} {why}" for path, why in paths.passed], paths.named)

    def _remember(self, hashed: Sequence[RawFile]) -> None:
        if not self._writable:
            return
        with self._writing() as db:
            db.executemany(
                "INSERT OR REPLACE INTO raw VALUES (?, ?, ?, ?, ?)",
                [(str(file.path), *file.stamp, file.sha256) for file in hashed if file.stamp],
            )


def _hash(path: Path) -> RawFile:
    with readable(path):
        before = stamp_of(path)
        sha = file_sha256(path)
        after = stamp_of(path)
    if before != after:
        raise ValueError(f"{path} changed while it was read; wait until its download has finished and run again")
    return RawFile(path, before[0], sha, before)


def batched(items: Sequence[Path], size: int) -> Iterable[Sequence[Path]]:
    """Cut a sequence into runs of at most `size`; `itertools.batched` of Python 3.12."""
    return (items[i : i + size] for i in range(0, len(items), size))
