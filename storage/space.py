"""Room on disk: whether the want of it is behind an error, and one sentence about it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from storage.assets import Workspace, describe_size
from storage.files import OUT_OF_SPACE, free_bytes, is_full

IN_KEY = False

WORDS = ("No space left on device", "Disk quota exceeded", "disk is full")
SHARED_MEMORY = Path("/dev/shm")


def want_of_space(error: Exception, workspace: Workspace) -> str | None:
    """Return what to tell people where a full disk is behind an error of a stage; None where it is not.

    A library or another process may have told of it in words of its own, or not at all.
    """
    chain = _chain(error)
    told = any(getattr(e, "errno", None) in OUT_OF_SPACE or any(words in str(e) for words in WORDS) for e in chain)
    root = workspace.folder.parent.parent
    if not told and not is_full(root):
        return None
    place = min((root, Path(tempfile.gettempdir()), SHARED_MEMORY), key=_free)
    file = next((e.filename for e in chain if isinstance(e, OSError) and e.filename), place)
    free = _free(place)  # without what was half written
    return (
        f"{file}: there is no space left on the disk of {place}, or in its quota: {describe_size(free)} are free, and "
        f"{_needed(workspace, free)}; make room and run again: what is finished is kept"
    )


def _chain(error: BaseException | None) -> list[BaseException]:
    return [] if error is None else [error, *_chain(error.__cause__ or error.__context__)]


def _free(place: Path) -> float:
    return free_bytes(place) if place.exists() else float("inf")


def _needed(workspace: Workspace, free: float) -> str:
    """Return what the units to come will take if they are like those that are finished; it is more than is free."""
    records = workspace.finished().values()
    _, total = workspace.progress()
    if not records or total is None:
        return "more is needed"
    to_come = total - len(records)
    size = sum(file.size for record in records for file in record.files) / len(records) * to_come
    needed = f"about {describe_size(size)} are" if size > free else "more is"
    return f"{needed} needed for the {to_come} units to come"
