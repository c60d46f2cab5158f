"""The raw layout of a fire archive: which files belong to which fire, by their names and contents.

landscape/Input_Geotiff.tif    one raster of several bands
landscape/indices.json         {"<number>": [y0, y1, x0, x1]}, half-open, rows first
landscape/WeatherHistory.csv   no header; line i names the weather file of fire i
landscape/Weathers/*.csv       one row per period
fire_frames/sequence_<number>/*.png, isochrones/sequence_<number>/*.png
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.fire_data import Decoding
from storage.assets import Asset
from storage.delimited import lines_of, read_text
from storage.files import readable
from storage.hashing import digest
from storage.raw import FoundFiles, RawInput

LANDSCAPE = "landscape/Input_Geotiff.tif"
INDICES = "landscape/indices.json"
HISTORY = "landscape/WeatherHistory.csv"
WEATHERS = "landscape/Weathers"
DIGITS = re.compile(r"\d{1,9}", re.ASCII)
SEQUENCE = re.compile(rf"sequence_({DIGITS.pattern})", re.ASCII)
NUMBER = re.compile(r"(\d+)\.png", re.IGNORECASE)
IMAGES = ("fire_frames", "isochrones")
ASSET_FOLDER = "archive/"
"""Where a generated archive lies in its asset."""

Box = tuple[int, int, int, int]
"""Rows y0 to y1 and columns x0 to x1 of the landscape, half-open."""


def archive_files(path: str) -> FoundFiles:
    """List the files of an archive that count, as absolute paths; a folder that is no archive is a `ValueError`.

    What else lies there is passed over, each with its reason.
    """
    root = Path(os.path.abspath(Path(path).expanduser()))
    if not (root / LANDSCAPE).is_file():
        raise ValueError(
            f"source.path: {root} is no fire archive, it has no {LANDSCAPE}; give the folder that holds landscape/, "
            "fire_frames/ and isochrones/"
        )
    found = sorted(_walk(str(root)))
    return FoundFiles(
        [Path(path) for path, reason in found if not reason],
        passed=[(Path(path), reason) for path, reason in found if reason],
    )


def _walk(root: str) -> Iterator[tuple[str, str]]:
    """Yield what lies in an archive, and why it does not count, "" where it does."""
    for entry, trouble in _scan(root):
        if not trouble and entry.is_dir() and entry.name in ("landscape", *IMAGES):
            yield from _landscape(entry.path) if entry.name == "landscape" else _sequences(entry.path)
        else:
            yield entry.path, trouble or "is no part of an archive"


def _landscape(folder: str) -> Iterator[tuple[str, str]]:
    for entry, trouble in _scan(folder):
        if not trouble and entry.is_dir() and entry.name == "Weathers":
            yield from _files(entry.path, ".csv")
        elif entry.is_file() and entry.name[0] != ".":
            yield entry.path, ""
        else:
            yield entry.path, trouble or "is no file"


def _sequences(folder: str) -> Iterator[tuple[str, str]]:
    for entry, trouble in _scan(folder):
        if not trouble and entry.is_dir() and SEQUENCE.fullmatch(entry.name):
            yield from _files(entry.path, ".png")
        else:
            yield entry.path, trouble or "is no folder sequence_<number>"


def _files(folder: str, ending: str) -> Iterator[tuple[str, str]]:
    for entry, trouble in _scan(folder):
        fits = entry.is_file() and entry.name.lower().endswith(ending)
        yield entry.path, trouble or ("" if fits else f"is no {ending} file")


def _scan(folder: str) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Yield what lies in a folder, and what keeps it from being opened."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield entry, "" if os.access(entry.path, os.R_OK | os.X_OK) else "cannot be opened: permission denied"
            else:
                yield entry, "" if entry.is_file() else "is a broken link or no file"


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive's files: their SHA-256 by their path below `root`, as POSIX."""

    root: Path
    files: Mapping[str, str]

    @classmethod
    def open(cls, raw: Asset | RawInput) -> Archive:
        """Find the archive in an asset's folder `archive/`, or in raw files."""
        if isinstance(raw, Asset):
            records = [f for f in raw.manifest.files if f.path.startswith(ASSET_FOLDER)]
            files = {f.path.removeprefix(ASSET_FOLDER): f.sha256 for f in records}
            return cls(raw.folder / ASSET_FOLDER, files)
        roots = [f.path.parents[1] for f in raw.files if f.path.as_posix().endswith("/" + LANDSCAPE)]
        assert len(roots) == 1, "raw files of a fire archive are listed by archive_files"
        base = len(str(roots[0])) + 1
        return cls(roots[0], {str(f.path)[base:].replace(os.sep, "/"): f.sha256 for f in raw.files})


def archive_names(raw: Any) -> Any:
    """Return a digest of which content has which name, as an argument for the stage `fire_records`.

    A raw input's fingerprint is that of contents alone, but here names carry meaning: two fires that swap their folders
    are another archive. What is pending in a plan is returned as it is.
    """
    return digest(dict(Archive.open(raw).files)) if isinstance(raw, Asset | RawInput) else raw


@dataclass(frozen=True, slots=True)
class FireFiles:
    """The files of one fire; names are relative to the archive's root."""

    name: str
    number: int
    frames: tuple[str, ...]
    targets: tuple[str, ...]
    weather: str
    box: Box


@dataclass(frozen=True, slots=True)
class Listing:
    """The fires of an archive in the order of their numbers, and those whose files do not fit together."""

    fires: tuple[FireFiles, ...]
    broken: Mapping[str, str]
    """One sentence per fire that cannot be read, by its name."""
    notes: Sequence[str] = ()
    """Sentences about the archive that people should read."""


def list_fires(archive: Archive, decoding: Decoding) -> Listing:
    """Put the files of every fire together; only names are looked at, no image is opened."""
    boxes = _boxes(archive)
    weathers = _weather_names(archive)
    images = _images(archive)
    numbers: dict[int, str] = {}
    for _, name in sorted(images):
        number = int(name.removeprefix("sequence_"))
        if numbers.setdefault(number, name) != name:
            raise ValueError(
                f"{archive.root}: folders {numbers[number]} and {name} have the same number; keep one of them"
            )
    for number in boxes:
        numbers.setdefault(number, f"sequence_{number:03d}")
    if not numbers:
        raise ValueError(f"{archive.root} holds no fires: there is no fire_frames/sequence_*; check the path")
    note = _compare_with_history(archive, weathers, numbers)
    fires, broken = [], {}
    for number in sorted(numbers):
        name = numbers[number]
        try:
            frames = _numbered(images, "fire_frames", name)
            targets = frames if decoding.target == "fire_frames" else _numbered(images, decoding.target, name)
            if len(frames) != len(targets):
                raise ValueError(f"has {len(frames)} frames but {len(targets)} {decoding.target}")
            if number not in boxes:
                raise ValueError(f"has no entry in {INDICES}")
            weather = _weather_file(archive, weathers, number)
            fires.append(FireFiles(name, number, frames, targets, weather, boxes[number]))
        except ValueError as error:
            broken[name] = f"{name} {error}"
    return Listing(tuple(fires), broken, (note,) if note else ())


def _images(archive: Archive) -> dict[tuple[str, str], list[str]]:
    """Return the image names of every (kind, sequence folder)."""
    images: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in archive.files:
        kind, _, rest = name.partition("/")
        if kind in IMAGES and SEQUENCE.fullmatch(rest.partition("/")[0]):
            images[kind, rest.partition("/")[0]].append(name)
    return images


def _numbered(images: Mapping[tuple[str, str], list[str]], kind: str, name: str) -> tuple[str, ...]:
    """Return a fire's images in the order of the numbers at their ends, which must run from 0 without a gap."""
    by_number: dict[int, str] = {}
    for path in sorted(images.get((kind, name), ())):
        match = NUMBER.search(path.rpartition("/")[2])
        if match is None:
            raise ValueError(f"has an image without a number, {path}")
        if by_number.setdefault(int(match[1]), path) != path:
            raise ValueError(f"has two images of number {int(match[1])}, {by_number[int(match[1])]} and {path}")
    if not by_number:
        raise ValueError(f"has no images in {kind}/{name}")
    missing = next((n for n in range(max(by_number)) if n not in by_number), None)
    if missing is not None:
        raise ValueError(f"lacks image {missing} in {kind}/{name}, where 0 to {max(by_number)} are needed")
    if len(by_number) < 2:
        raise ValueError(f"has one image in {kind}/{name}, where at least two make a step")
    return tuple(by_number[n] for n in sorted(by_number))


def _boxes(archive: Archive) -> dict[int, Box]:
    path = archive.root / INDICES
    form = 'it must hold {"<number>": [y0, y1, x0, x1], ...} in whole pixels'
    if INDICES not in archive.files:
        raise ValueError(f"{archive.root} has no {INDICES}; {form}")
    with readable(path):
        content = path.read_bytes()
    try:
        entries = json.loads(content, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}); {form}") from None
    if not isinstance(entries, dict):
        raise ValueError(f"{path} holds no object; {form}")
    boxes: dict[int, Box] = {}
    for name, value in entries.items():
        if not DIGITS.fullmatch(name):
            raise ValueError(f"{path}: entry {name!r} is no number of a fire; {form}")
        if int(name) in boxes:
            raise ValueError(f"{path} has two entries of fire {int(name)}; keep one of them")
        box = [_whole(v) for v in value] if isinstance(value, list) else []
        if len(box) != 4 or None in box:
            raise ValueError(
                f"{path}: entry {name} is {json.dumps(value)[:80]}, which is not four whole numbers; {form}"
            )
        boxes[int(name)] = (box[0], box[1], box[2], box[3])  # type: ignore[assignment]
    return boxes


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"it names {twice[0]} twice")
    return dict(pairs)


def _whole(value: Any) -> int | None:
    """Return a whole number, also of `380.0` and `"380"`; None for everything else."""
    if isinstance(value, str):
        return int(value) if DIGITS.fullmatch(value) else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _weather_names(archive: Archive) -> list[str]:
    """Return the file name on every line of the history, whatever path stands before it; "" for a blank line."""
    path = archive.root / HISTORY
    if HISTORY not in archive.files:
        raise ValueError(f"{archive.root} has no {HISTORY}; its line i names the weather file of fire i")
    try:
        lines = [line.strip().strip('"').strip() for line in lines_of(read_text(path))]
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None
    for number, line in enumerate(lines, 1):
        if line and not line.lower().endswith(".csv"):
            raise ValueError(
                f"{path}: line {number} names no weather file, {line[:80]!r}; line i names that of fire i, without a "
                "header or further columns"
            )
    while lines and not lines[-1]:
        lines.pop()
    return [line.replace("\\", "/").rpartition("/")[2] for line in lines]


def _compare_with_history(archive: Archive, weathers: list[str], numbers: Collection[int]) -> str:
    """Return how a history differs from the fires, "" where it does not; refuse one that lines seem to be moved in."""
    highest = max(numbers)
    if len(weathers) == highest:
        return ""
    path = archive.root / HISTORY
    told = f"{path} has {len(weathers)} lines, but the last fire is number {highest}"
    blank = [number for number in sorted(numbers) if number <= len(weathers) and not weathers[number - 1]]
    if len(weathers) > highest and blank:
        raise ValueError(f"{told}, and line {blank[0]}, that of fire {blank[0]}, is blank; line i names that of fire i")
    return f"{told}: line i is taken for fire i"


def _weather_file(archive: Archive, names: list[str], number: int) -> str:
    if not 1 <= number <= len(names) or not names[number - 1]:
        raise ValueError(f"has no line {number} in {HISTORY}")
    path = f"{WEATHERS}/{names[number - 1]}"
    if path not in archive.files:
        raise ValueError(f"needs the weather file {path}, which is missing")
    return path
