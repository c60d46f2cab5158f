"""One case: foreign files in a folder, a reader, and what it may do with them.

It may give a result, or refuse in one sentence of ours, which the command line ends with. Everything else is a fault:
another exception, the words of a library, more than a few seconds or more memory than is allowed, and files anywhere
but in the folder that is for what comes out.
"""

from __future__ import annotations

import linecache
import os
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, Literal, NamedTuple

from storage.files import OF_THE_DISK, OF_THE_PLACE
from tests.conftest import REPOSITORY

SLOW = 5.0
"""Seconds of a processor that a case may take."""
LONGEST_SENTENCE = 5000
PRODUCT = tuple(str(REPOSITORY / name) + os.sep for name in ("configs", "flows", "models", "storage", "tasks"))
GIVEN, MADE = "given", "made"
"""Folders of a case: of foreign files, and of what may be written."""

Files = Mapping[str, bytes]
Outcome = Literal["result", "sentence", "fault", "unmade"]


@dataclass(frozen=True)
class Reader:
    """What reads foreign files, and how to make some."""

    name: str
    modules: tuple[str, ...]
    """Of the product; counts hold as long as these and all that they import stay as they are."""
    make: Callable[[Random], Files]
    """Makes the files of a case, by name."""
    read: Callable[[Path, Path], object]
    """Reads them, from a folder; the second one is for what it writes."""
    least: int = 200
    """Cases of the short part that runs with the tests."""

    def case(self, number: int) -> Files:
        """Return the files of a case; equal numbers, equal files."""
        return self.make(Random(f"{self.name} {number}"))


class Verdict(NamedTuple):
    """What came of a case."""

    outcome: Outcome
    what: str = ""
    """The sentence, or the fault."""
    where: str = ""
    """The line of the product from which a fault came; faults of one line are one kind."""
    seconds: float = 0.0
    trace: str = ""


class ToldError(Exception):
    """A reader says its sentence without raising it."""


class _Escape(BaseException):
    """A file is about to be written where none may be."""


def run_case(reader: Reader, number: int, sandbox: Path) -> Verdict:
    """Run one case in a folder of its own, of which nothing is left."""
    given, made = sandbox / GIVEN, sandbox / MADE
    try:
        with warnings.catch_warnings(action="ignore"):
            files = reader.case(number)
    except Exception as error:  # libraries refuse to write some of what was thought of
        return Verdict("unmade", f"{type(error).__name__}: {error}")
    for name, data in files.items():
        (given / name).parent.mkdir(parents=True, exist_ok=True)
        (given / name).write_bytes(data)
    made.mkdir(exist_ok=True)
    try:
        return _judged(reader, given, made, set(files))
    finally:
        for folder in (given, made):
            shutil.rmtree(folder, ignore_errors=True)


def _judged(reader: Reader, given: Path, made: Path, names: set[str]) -> Verdict:
    before = time.process_time()
    verdict = Verdict("result")
    with _Fence(made), warnings.catch_warnings(action="ignore"):
        try:
            reader.read(given, made)
        except (Exception, _Escape) as error:
            verdict = _of_error(error)
    seconds = time.process_time() - before
    if verdict.outcome != "fault" and seconds > SLOW:
        return Verdict("fault", f"took {seconds:.1f} s", "slow", seconds)
    left = {str(path.relative_to(given)) for path in given.rglob("*") if not path.is_dir()}
    beside = {path.name for path in given.parent.iterdir()} - {GIVEN, MADE}
    if verdict.outcome != "fault" and (left != names or beside):
        return Verdict("fault", f"left {sorted((left ^ names) | beside)} behind", "files", seconds)
    return verdict._replace(seconds=seconds)


def _of_error(error: BaseException) -> Verdict:
    text = str(error)
    if isinstance(error, ToldError):
        return Verdict("sentence", text)
    frames = list(traceback.walk_tb(error.__traceback__))
    ours = [(frame, line) for frame, line in frames if frame.f_code.co_filename.startswith(PRODUCT)]
    if fault := _fault(error, text, frames[-1]):
        frame, line = ours[-1] if ours else frames[-1]
        where = f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}:{line}"
        trace = "".join(traceback.format_exception(error))[-6000:]
        return Verdict("fault", fault[:500], f"{type(error).__name__} {where}", trace=trace)
    return Verdict("sentence", text)


def _fault(error: BaseException, text: str, raised: tuple[FrameType, int]) -> str:
    """Return why an exception is no sentence of ours that the command line ends with, "" where it is one."""
    frame, line = raised
    if isinstance(error, OSError):
        return "" if error.errno in (*OF_THE_DISK, *OF_THE_PLACE) else f"{type(error).__name__}: {text}"
    if not isinstance(error, ValueError):
        return f"{type(error).__name__}: {text}"
    path = frame.f_code.co_filename
    if not (path.startswith(PRODUCT) and linecache.getline(path, line).strip().startswith("raise")):
        return f"the words of a library, {type(error).__name__}: {text}"
    if not text.strip() or len(text) > LONGEST_SENTENCE:
        return f"a sentence of {len(text)} characters: {text[:200]}"
    return ""


class _Fence:
    """Keeps Python from writing anywhere but in a folder, while entered; what libraries in C leave is found later."""

    folder: Path | None = None
    installed = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        if not _Fence.installed:
            sys.addaudithook(_audit)
            _Fence.installed = True
        _Fence.folder = self._folder

    def __exit__(self, *_: object) -> None:
        _Fence.folder = None


CHANGING = {"os.mkdir": 1, "os.rename": 2, "os.link": 2, "os.symlink": 2, "os.remove": 1, "os.rmdir": 1,
            "os.truncate": 1, "os.chmod": 1, "shutil.rmtree": 1}  # fmt: skip
"""Events of Python that change files, and how many of their arguments are paths."""
CACHES = ("__pycache__", "torchinductor_")
"""What the names of files have in common that libraries keep of code."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _Fence.folder is None:
        return
    paths = arguments[: CHANGING.get(event, 0)]
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
        paths = arguments[:1]
    for path in paths:
        if isinstance(path, str | bytes | os.PathLike) and not _allowed(os.fsdecode(path), _Fence.folder):
            raise _Escape(f"{event} {os.fsdecode(path)}")


def _allowed(path: str, folder: Path) -> bool:
    if path.startswith(("/dev/null", "/proc/self")) or any(cache in path for cache in CACHES):
        return True
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
