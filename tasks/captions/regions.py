"""From the words for a region to a box on the globe, and how much of a window that box covers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import radians, sin
from pathlib import Path
from typing import NamedTuple, Self

from storage.delimited import read_delimited
from tasks.captions.quantities import ANY_UNIT
from tasks.captions.region_table import ALIASES, WORLD, Box

_COMPASS = re.compile(r"(?:(north|south|central)(?:ern)?)?(?:(east|west|central)(?:ern)?)?")

_FILLERS = frozenset(
    ("the", "of", "a", "an", "part", "parts", "much", "most", "some", "all", "large", "interior", "inland", "coastal")
)
"""Words that do not say which part is meant."""

_NAMELESS = frozenset(
    ("unknown", "unspecified", "none", "null", "nan", "na", "n", "region", "regions", "area", "areas")
)
"""Words that stand where a region has no name; `n` is what is left of `n/a` without fillers."""

_QUANTITY = re.compile(rf"\d[\d.,]*(?:[\s-]?(?:{ANY_UNIT}))?", re.IGNORECASE)

BOX_COLUMNS = ("region", "north", "west", "south", "east")

BEGINNING = 160
"""Characters of a text in which a region is looked for."""

_LONGEST = 8
"""Words of the longest phrase that is looked up."""


class _Name(NamedTuple):
    """A known name in a text."""

    length: int
    begin: int
    """How many words come before it."""
    box: Box


class Gazetteer:
    """Names of regions and their boxes.

    Case, hyphens, `the` and `parts of` do not matter. `northern X`, `south-east of X`, `X (north)` and `central X` are
    that half, quarter or middle of the box of X, unless they have a box of their own.
    """

    def __init__(self, boxes: Mapping[str, Box], aliases: Mapping[str, str] | None = None) -> None:
        named = {name: boxes[of] for name, of in (aliases or {}).items()} | dict(boxes)
        self._boxes = {_key(name): box for name, box in named.items()}

    @classmethod
    def world(cls) -> Self:
        """Return the built-in table."""
        return cls(WORLD, ALIASES)

    def extended(self, boxes: Mapping[str, Box]) -> Self:
        """Return a gazetteer in which these boxes are added or replace others."""
        other = type(self)(boxes)
        other._boxes = self._boxes | other._boxes
        return other

    def find(self, region: str | None, text: str = "") -> Box | None:
        """Return the box of the longest known name in `region`, or, where that has no name, in the beginning of `text`.

        The text is read together with the region: some files cut it off (`East`, `of South America had showers`). A
        name that is not known has no box, whatever else is mentioned, unless the text goes on with it (`Horn`, `of
        Africa`).
        """
        region = region or ""
        if box := _longest(self._named(region)):
            return box
        region = _QUANTITY.sub(", ", region)
        own = _own_words(region)
        named = self._named(f"{region} {text[:BEGINNING]}")
        return _longest([name for name in named if name.begin < own] if own else named)

    def mentions(self, text: str) -> set[Box]:
        """Return the boxes of all regions that a text names; `southern Spain` does not count as `Spain` too."""
        return {name.box for name in self._named(text)}

    def _named(self, text: str) -> list[_Name]:
        """The known names, from left to right, each as long as can be."""
        found = []
        before = 0
        for clause in _clauses(text):
            start = 0
            while start < len(clause):
                for end in range(min(len(clause), start + _LONGEST), start, -1):
                    if box := self._box(clause[start:end]):
                        found.append(_Name(len(" ".join(clause[start:end])), before + start, box))
                        start = end - 1
                        break
                start += 1
            before += len(clause)
        return found

    def _box(self, words: list[str]) -> Box | None:
        """The box of a phrase that is, as a whole, a name with or without a direction before or after it."""
        if box := self._boxes.get(" ".join(words)):
            return box
        for side, name in ((words[0], words[1:]), (words[-1], words[:-1])):
            if name and (found := _COMPASS.fullmatch(side)):
                rows, columns = found.groups()
                own = (self._boxes.get(" ".join([spelling, *name])) for spelling in _spellings(side))
                if box := next(filter(None, own), None):
                    return box
                if whole := self._box(name):
                    return _part(whole, rows, columns)
        return None


def load_regions(path: Path) -> dict[str, Box]:
    """Read boxes from a CSV with the columns region, north, west, south, east (degrees, longitudes -180 to 180).

    Raises:
        ValueError: a column is missing, or a row is not a box.
    """
    try:
        table = read_delimited(path, lambda header: set(BOX_COLUMNS) <= set(header))
        columns = {name: table.column(name) for name in BOX_COLUMNS if name in table.header}
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None
    if missing := [name for name in BOX_COLUMNS if name not in columns]:
        raise ValueError(f"{path} lacks {', '.join(missing)}; its header must be {','.join(BOX_COLUMNS)}")
    boxes: dict[str, Box] = {}
    for line, cells in table.rows:
        if not any(cell.strip() for cell in cells):
            continue
        try:
            name, *sides = (cells[place].strip() for place in columns.values())
            north, west, south, east = map(float, sides)
            valid = -90 <= south < north <= 90 and -180 <= west <= 180 and -180 <= east <= 180 and west != east
        except (IndexError, ValueError):
            valid = False
        if not (valid and name):
            raise ValueError(
                f"{path}:{line} is not a region: it needs a name, -90 <= south < north <= 90 and longitudes from -180 "
                "to 180 (west > east crosses the date line)"
            )
        if boxes.setdefault(name, box := (north, west, south, east)) != box:
            raise ValueError(f"{path}:{line} gives {name} a second box; keep one of them")
    return boxes


def overlap(box: Box, window: Box) -> tuple[float, float]:
    """Return the share of the window's area that the box covers, and the share of the box's that the window covers."""
    north, south = min(box[0], window[0]), max(box[2], window[2])
    width, other = _width(box), _width(window)
    shift = (window[1] - box[1]) % 360
    shared = max(0.0, min(width, shift + other) - shift) + max(0.0, min(width, shift + other - 360))
    common = _area(north, south, shared) if north > south else 0.0
    return common / _area(window[0], window[2], other), common / _area(box[0], box[2], width)


def _longest(names: Sequence[_Name]) -> Box | None:
    return max(names, key=lambda name: name.length).box if names else None


def _own_words(region: str) -> int:
    """Return how many words of a region end with the last one that is a name of its own; 0 where none is."""
    words = [word for clause in _clauses(region) for word in clause]
    own = (k for k, word in enumerate(words, 1) if word not in _NAMELESS and not _COMPASS.fullmatch(word))
    return max(own, default=0)


def _width(box: Box) -> float:
    return (box[3] - box[1]) % 360 or 360.0


def _area(north: float, south: float, width: float) -> float:
    """Area on the sphere, up to a factor."""
    return width * (sin(radians(north)) - sin(radians(south)))


def _part(box: Box, rows: str | None, columns: str | None) -> Box:
    """The part of a box on a side; `central` is the middle half."""
    north, west, south, east = box
    height, width = north - south, _width(box)
    if rows == "north":
        south = north - height / 2
    elif rows == "south":
        north = south + height / 2
    elif columns not in ("east", "west"):
        north, south = north - height / 4, south + height / 4
    if columns == "west":
        east = west + width / 2
    elif columns == "east":
        west = east - width / 2
    elif columns == "central" or rows not in ("north", "south"):
        west, east = west + width / 4, east - width / 4
    return north, _wrapped(west), south, _wrapped(east)


def _wrapped(longitude: float) -> float:
    return longitude if -180 <= longitude <= 180 else (longitude + 180) % 360 - 180


def _spellings(side: str) -> tuple[str, str]:
    """`northern` and `north` mean the same before a name; the adjective first."""
    stem = side.removesuffix("ern")
    return f"{stem}ern", stem


def _key(name: str) -> str:
    return " ".join(word for clause in _clauses(name) for word in clause)


def _clauses(text: str) -> list[list[str]]:
    """Lower-case words between punctuation marks, compass words joined (`south-east` => `southeast`)."""
    text = re.sub(r"\bU\.?S\.?(?:A\.?)?(?=\W|$)", "United States", text)
    text = re.sub(r"[‐‑‒–—_()\[\]-]", " ", text.lower())
    text = re.sub(r"['’]s\b|[.](?=\w)", "", text)
    text = re.sub(r"\b(north|south)(ern)? (east|west|central)", r"\1\3", text)
    text = re.sub(r"\b((?:north|south)(?:east|west)?|east|west)(?:ern)? (?:parts? )?of\b", r"\1ern", text)
    clauses = (re.findall(r"[^\W\d]+", clause) for clause in re.split(r"[^\w\s'’]|\d+", text))
    return [[word for word in words if word not in _FILLERS] for words in clauses if words]
