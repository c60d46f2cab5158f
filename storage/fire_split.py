"""A split of a token cache's fires, and the statistics of its training part, as two JSON files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from storage.files import write_atomic

SPLIT = "split.json"
STATISTICS = "statistics.json"

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FireEntry(_Model):
    """One fire of the cache."""

    fire: int
    """Index in the cache."""
    name: str
    part: Part | None
    """None where it is left out."""
    group: int
    """Fires of one group are never in different parts."""
    reason: str = ""
    """Why it is left out."""
    region: tuple[int, int, int, int]
    """Rows gy0 to gy1 and columns gx0 to gx1 of its token grid that belong to its part, half-open."""


class Rules(_Model):
    """What no two fires of different parts may have in common."""

    pixels: Literal["cut", "crop", "burnt", "overlap", "none"]
    """`cut`: regions share no pixel; `crop`: crops share none; `burnt`: a crop holds no pixel that burns in a later
    part; `overlap`: crops share at most `max_overlap` of the smaller one."""
    max_overlap: float
    weather: Literal["rows", "file", "none"]


class FireSplit(_Model):
    """Which fire is in which part, and by what rules."""

    rules: Rules
    fires: tuple[FireEntry, ...]

    def part(self, name: Part) -> list[FireEntry]:
        """Return the fires of a part in the order of the cache."""
        return [entry for entry in self.fires if entry.part == name]

    def save(self, folder: Path) -> None:
        """Write `split.json`."""
        write_atomic(folder / SPLIT, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        return cls.model_validate_json(_read(folder / SPLIT))


class BandStatistics(_Model):
    """A continuous band over the valid pixels of the training fires' domain, every pixel once."""

    name: str
    mean: float
    """0 for slopes, whose sign turns with the map."""
    std: float
    """0 for a band that is constant or nowhere valid; both slopes have the same."""
    pixels: int


class ClassStatistics(_Model):
    """A categorical band: the codes that training fires have seen, in ascending order; they become 1, 2, ..."""

    name: str
    codes: tuple[int, ...]


class WindStatistics(_Model):
    """Wind speed over the measured rows of the training fires."""

    mean: float
    std: float
    rows: int


class Statistics(_Model):
    """What standardises a cache; of training fires alone."""

    bands: tuple[BandStatistics, ...]
    classes: tuple[ClassStatistics, ...]
    wind: WindStatistics

    def save(self, folder: Path) -> None:
        """Write `statistics.json`."""
        write_atomic(folder / STATISTICS, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        return cls.model_validate_json(_read(folder / STATISTICS))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; make the split with the stage fire_split") from None
