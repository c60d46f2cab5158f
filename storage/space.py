"""Room on disk, and the right to write there: whether the want of it is behind an error, and one sentence about it."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Sequence
from pathlib import Path

from storage.assets import Asset, Workspace, describe_size
from storage.files import OF_THE_DISK, OF_THE_PLACE, OUT_OF_SPACE, free_bytes, is_full, walk_files

IN_KEY = False

WORDS = ("No space left on device", "Disk quota exceeded", "disk is full")
SHARED_MEMORY = Path("/dev/shm")


def disk_sentence(error: Exception, workspace: Workspace, earlier: Sequence[Asset] = ()) -> str | None:
    """Return what to tell people where a full or read-only disk is behind an error of a stage; None where it is not.

    A library or another process may have told of it in words of its own, or not at all. `earlier` are assets of the
    same stage, whose size says what is needed.
    """
    chain = _chain(error)
    told = any(getattr(e, "errno", None) in OUT_OF_SPACE or any(words in str(e) for words in WORDS) for e in chain)
    root = workspace.folder.parent.parent
    if not told and not is_full(root):
        refused = (e for e in chain if isinstance(e, OSError) and e.errno in OF_THE_DISK)
        return next(map(refusal, refused), None)
    named = next((e.filename for e in chain if isinstance(e, OSError) and e.filename), None)
    ours = named is not None and Path(str(named)).is_relative_to(root)
    place = root if ours else min((root, Path(tempfile.gettempdir()), SHARED_MEMORY), key=_free)
    file = named or (workspace.folder if place == root else place)
    free = _free(place)  # without what was half written
    needed = _needed(workspace, free, earlier)
    return f"{_no_space(file, place, free)}{needed}; make room and run again: what is finished is kept"


def refusal(error: OSError) -> str:
    """Return one sentence about an error of the disk that no stage met."""
    file = error.filename or "a file"
    if error.errno in OF_THE_PLACE:
        return f"{file}: {error.strerror}; choose another place"
    if error.errno == errno.EROFS:
        return f"{file}: {error.strerror}; make it writable, or choose another place"
    if error.errno not in OUT_OF_SPACE:
        return f"{file}: {error.strerror}; give this user the right to it and its folder, or choose another one"
    place = next((folder for folder in Path(file).absolute().parents if folder.exists()), Path())
    free = _free(place)
    return f"{_no_space(file, place, free)}more than {describe_size(free)} is needed; make room and run again"


def _no_space(file: str | Path, place: Path, free: float) -> str:
    return (
        f"{file}: there is no space left on the disk of {place}, or in its quota: {describe_size(free)} are free, and "
    )


def _chain(error: BaseException | None) -> list[BaseException]:
    """Return an error, those that it holds together, and those that led to it."""
    if error is None:
        return []
    together = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return [error, *(inner for one in together for inner in _chain(one)), *_chain(error.__cause__ or error.__context__)]


def _free(place: Path) -> float:
    return free_bytes(place) if place.exists() else float("inf")


def _needed(workspace: Workspace, free: float, earlier: Sequence[Asset]) -> str:
    """Return what is still needed if units to come are like finished ones, or the whole asset like an earlier one."""
    records = workspace.finished().values()
    _, total = workspace.progress()
    if records and total is not None:
        to_come = total - len(records)
        size = sum(file.size for record in records for file in record.files) / len(records) * to_come
        needed = f"about {describe_size(size)} are" if size > free else f"more than {describe_size(free)} is"
        return f"{needed} needed for the {to_come} units to come"
    size = 0
    with contextlib.suppress(ValueError):  # a damaged manifest
        size = max((asset.size for asset in earlier[:1]), default=0)
    if size > free:
        return f"about {describe_size(size)} are needed"
    written = sum((workspace.folder / name).stat().st_size for name in walk_files(workspace.folder))
    return f"more than {describe_size(written + free)} is needed for all of it"
