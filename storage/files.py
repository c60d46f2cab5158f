"""Durable file operations: a file or folder is either whole under its final name or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

IN_KEY = False

OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)
OF_THE_DISK = (*OUT_OF_SPACE, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors that are the disk's, or of rights to it, and nobody's mistake in the program."""
OF_THE_PLACE = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)
"""Errors of paths where people want something to be written."""
SCANT = 2**16  # bytes: with fewer free a disk counts as full


def unreadable(error: OSError) -> str:
    """Return what keeps a file of the user's from being read, as a predicate."""
    return f"cannot be read ({error.strerror}); give this user the right to read it, or take it out"


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Make one sentence of what the system has against reading a file; what a library says of its content passes."""
    try:
        yield
    except OSError as error:
        if error.strerror is None:
            raise
        raise ValueError(f"{path} {unreadable(error)}") from None


def require_readable(path: Path) -> None:
    """Refuse a file that this user may not read, before a library calls it damaged."""
    with readable(path):
        path.open("rb").close()


def fsync(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a whole file under its final name, replacing any other; readers never see a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # a read-only disk refuses this, too
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in OF_THE_DISK:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there takes the final name on a clean exit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        yield temporary
        fsync(temporary)
        temporary.replace(path)
    except BaseException as error:
        full = isinstance(error, Exception) and is_full(path.parent)  # before what was written makes room again
        with contextlib.suppress(OSError):  # a read-only disk refuses this, too
            temporary.unlink(missing_ok=True)
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def free_bytes(folder: Path) -> int:
    """Return the bytes that may still be written on the disk of a folder."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def is_full(folder: Path) -> bool:
    """Whether the disk of a folder has no room left."""
    return free_bytes(folder) < SCANT


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or in the one above it that exists, to begin with the folder itself."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return os.access(existing, os.W_OK)


def is_temporary(name: str) -> bool:
    """Whether a path is hidden, at any depth, or has the ending of what is not whole yet.

    >>> is_temporary("data/.members-x/a.nc"), is_temporary("data/a.nc")
    (True, False)
    """
    return any(part.startswith(".") or part.endswith(".tmp") for part in name.split("/"))


def walk_files(folder: Path) -> Iterator[str]:
    """Yield every file below a folder as a POSIX path relative to it, in no particular order."""
    base = len(str(folder)) + 1
    stack = [str(folder)]
    while stack:
        with os.scandir(stack.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
                else:
                    yield entry.path[base:].replace(os.sep, "/")


def remove_tree(folder: Path) -> None:
    """Delete a folder; it first leaves its name at once, so that nobody meets half of it."""
    import shutil

    if not folder.exists():
        return
    trash = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.trash")
    folder.rename(trash)
    shutil.rmtree(trash)
