"""A training set: statistics, splits and usable windows of a window store, as JSON and one bit per window."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from storage.files import atomic_path, write_atomic
from storage.windows import Bits, WindowGrid

SUMMARY = "training_set.json"
USABLE = "usable.npy"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ChannelStatistics(_Model):
    """Statistics of one channel over the training period, of its values that are not NaN."""

    channel: str
    count: int
    mean: float
    std: float
    """Of the population; 0 for a constant channel."""
    min: float
    max: float
    nan_share: float
    """Share of NaN in the steps that are there."""


def normalisation(statistics: Sequence[ChannelStatistics]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and scale per channel: (x - mean) * scale has mean 0 and standard deviation 1."""
    mean = np.array([s.mean for s in statistics], np.float32)
    scale = np.array([1 / s.std if s.std > 0 else 1.0 for s in statistics], np.float32)
    return mean, scale


class Block(_Model):
    """A stretch of time that belongs to one split, and its windows; a window lies wholly in its block."""

    first: int
    stop: int
    """Steps, `stop` excluded."""
    start: datetime
    end: datetime
    """Times of the first and last step, UTC."""
    first_window: int
    stop_window: int
    """Windows, `stop_window` excluded."""
    usable: int
    missing: int
    """Windows left out because they cover a step at which a channel is missing."""
    too_many_nan: int
    """Windows left out because a channel has a larger share of NaN than `windows.max_nan_share`."""


class TrainingSet(_Model):
    """What a training run needs beside the store."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    steps: int
    """Length of the store's time axis."""
    grid: WindowGrid
    statistics: tuple[ChannelStatistics, ...]
    """In channel order."""
    splits: dict[str, tuple[Block, ...]]
    """`train`, `validation` and `test`, as far as there are any."""
    outside: int
    """Windows in no split: in a gap, across the end of a block, or outside the chosen periods."""
    warnings: tuple[str, ...]
    usable: Bits = Field(exclude=True, repr=False)
    """One bit per window of `grid`; set ones lie in a split and may be used."""

    def length(self, split: str) -> int:
        """Return the number of usable windows of a split."""
        return sum(block.usable for block in self.blocks(split))

    def blocks(self, split: str) -> tuple[Block, ...]:
        """Return the blocks of a split; `ValueError` when there is no such split."""
        if split not in self.splits:
            raise ValueError(f"the training set has no split {split!r}, only {', '.join(self.splits)}")
        return self.splits[split]

    def origin(self, split: str, index: int) -> tuple[int, int, int]:
        """Return step, row and column of usable window `index` of a split; `IndexError` beyond its length."""
        if index >= 0:
            for block in self.blocks(split):
                if index < block.usable:
                    return self.grid.origin(self.usable.select(self.usable.rank(block.first_window) + index))
                index -= block.usable
        raise IndexError(f"{split} has {self.length(split)} usable windows")

    def save(self, folder: Path) -> None:
        """Write `training_set.json` and `usable.npy`."""
        with atomic_path(folder / USABLE) as path:
            self.usable.save(path)
        write_atomic(folder / SUMMARY, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; the bits stay on disk and are mapped into memory."""
        try:
            summary = json.loads((folder / SUMMARY).read_text())
        except FileNotFoundError:
            raise ValueError(f"{folder} is no training set: it has no {SUMMARY}; build it first") from None
        size = len(WindowGrid.model_validate(summary["grid"]))
        return cls.model_validate({**summary, "usable": Bits.load(folder / USABLE, size)})
