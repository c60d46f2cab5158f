"""Window arithmetic: where training windows lie, which of them are usable, and how the i-th one is found.

Windows are numbered by time, then row, then column of their origin; no list of them is ever made. One bit per window
says whether it is usable.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from configs.weather import WindowConfig

SUPERBLOCK = 256  # bytes of bits per entry of the directory


class Axis(BaseModel):
    """Origins of windows along one axis: every `stride` from `first`, the last one moved back to end at `stop`."""

    model_config = ConfigDict(frozen=True)

    first: int
    stop: int
    length: int
    stride: int
    count: int

    @classmethod
    def inside(cls, first: int, stop: int, length: int, stride: int, *, cover_end: bool = False) -> Self:
        """Place windows within [first, stop); `cover_end` adds one flush with the end if the stride misses it."""
        span = stop - first - length
        count = 0 if span < 0 else span // stride + 1 + (cover_end and span % stride > 0)
        return cls(first=first, stop=stop, length=length, stride=stride, count=count)

    @classmethod
    def around(cls, period: int, length: int, stride: int) -> Self:
        """Place windows on a closed circle of `period` cells."""
        count = -(-period // stride) if length <= period else 0
        return cls(first=0, stop=period + length, length=length, stride=stride, count=count)

    def origin(self, k: int) -> int:
        """Return where window `k` begins."""
        return min(self.first + k * self.stride, self.stop - self.length)

    def origins(self) -> NDArray[np.int64]:
        """Return where every window begins."""
        return np.minimum(self.first + np.arange(self.count) * self.stride, self.stop - self.length)

    def within(self, first: int, stop: int) -> tuple[int, int]:
        """Return the range of windows that lie wholly in [first, stop); `stride`-spaced axes only."""
        low = max(0, -(-(first - self.first) // self.stride))
        high = min(self.count, (stop - self.length - self.first) // self.stride + 1)
        return low, max(low, high)


class WindowGrid(BaseModel):
    """All windows of a store: `index <-> (t, y, x)`."""

    model_config = ConfigDict(frozen=True)

    time: Axis
    rows: Axis
    cols: Axis
    anchor_step: int
    """Step within a window whose date names the window."""

    @classmethod
    def of(
        cls,
        config: WindowConfig,
        time: NDArray[np.datetime64],
        plane: tuple[int, int],
        *,
        is_global: bool,
        begin: int = 0,
    ) -> Self:
        """Place windows on a store with this time axis and grid, from step `begin` on; `ValueError` when none fits."""
        first, stop = time_range(time, config.time_start, config.time_end)
        first = min(max(first, begin), stop)
        height, width = plane
        if config.wrap_longitude and not is_global:
            raise ValueError(
                "windows.wrap_longitude needs a grid that goes around the globe, and this one does not; set it to false"
            )
        if config.wrap_longitude:
            cols = Axis.around(width, config.width, config.stride_width)
        else:
            cols = Axis.inside(0, width, config.width, config.stride_width, cover_end=config.cover_edges)
        grid = cls(
            time=Axis.inside(first, stop, config.time, config.stride_time),
            rows=Axis.inside(0, height, config.height, config.stride_height, cover_end=config.cover_edges),
            cols=cols,
            anchor_step={"first": 0, "middle": config.time // 2, "last": config.time - 1}[config.anchor],
        )
        if not grid.time.count:
            covered = f"{time[begin]} to {time[-1]}" if len(time) else "nothing"
            raise ValueError(
                f"No windows: windows.time is {config.time} steps, but {stop - first} of the store's "
                f"{len(time) - begin} steps "
                f"({covered}) lie in the chosen range; widen the time range or lower windows.time"
            )
        for axis, name, size in ((grid.rows, "height", height), (grid.cols, "width", width)):
            if not axis.count:
                raise ValueError(
                    f"No windows: windows.{name} is {axis.length} cells, but the grid has {size}; "
                    f"choose a larger area or lower windows.{name}"
                )
        return grid

    def __len__(self) -> int:
        return self.time.count * self.per_time

    @property
    def per_time(self) -> int:
        """Windows per time origin."""
        return self.rows.count * self.cols.count

    @property
    def shape(self) -> tuple[int, int, int]:
        """Time steps, rows and columns of a window."""
        return self.time.length, self.rows.length, self.cols.length

    def origin(self, index: int) -> tuple[int, int, int]:
        """Return the step, row and column where a window begins."""
        k, cell = divmod(index, self.per_time)
        row, col = divmod(cell, self.cols.count)
        return self.time.origin(k), self.rows.origin(row), self.cols.origin(col)


def time_range(
    time: NDArray[np.datetime64], start: date | datetime | None, end: date | datetime | None
) -> tuple[int, int]:
    """Return the range of steps from `start` up to `end`; both count in, and a date as `end` is its whole day."""
    first = 0 if start is None else int(np.searchsorted(time, _instant(start), "left"))
    if end is None:
        return first, len(time)
    if isinstance(end, datetime):
        return first, max(first, int(np.searchsorted(time, _instant(end), "right")))
    return first, max(first, int(np.searchsorted(time, _instant(end + timedelta(days=1)), "left")))


def _instant(value: date | datetime) -> np.datetime64:
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(value, "us")


@dataclass(frozen=True, slots=True)
class Bits:
    """A packed bit vector with rank and select; about 1.03 bits of memory per bit."""

    packed: NDArray[np.uint8]
    size: int
    directory: NDArray[np.int64]
    """Set bits before each superblock, then all of them."""

    @classmethod
    def of(cls, packed: NDArray[np.uint8], size: int) -> Self:
        """Index packed bits (little bit order, zero beyond `size`)."""
        starts = np.arange(0, len(packed), SUPERBLOCK)
        counts = np.add.reduceat(np.bitwise_count(packed), starts, dtype=np.int64) if len(packed) else starts
        return cls(packed, size, np.concatenate([[0], np.cumsum(counts)]))

    @classmethod
    def load(cls, path: Path, size: int) -> Self:
        """Map the bits of a file that `save` wrote; processes share the memory."""
        packed = np.load(path, mmap_mode="r", allow_pickle=False)
        if packed.shape != (-(-size // 8),) or packed.dtype != np.uint8:
            raise ValueError(f"{path} does not hold {size} bits; build the training set again")
        return cls.of(packed, size)

    def save(self, path: Path) -> None:
        """Write the bits as a NumPy file."""
        np.save(path, self.packed, allow_pickle=False)

    def rank(self, position: int) -> int:
        """Return how many bits before `position` are set."""
        block, byte = position // (8 * SUPERBLOCK), position // 8
        count = self.directory[block] + np.bitwise_count(self.packed[block * SUPERBLOCK : byte]).sum(dtype=np.int64)
        if position % 8:
            count += (int(self.packed[byte]) & ((1 << position % 8) - 1)).bit_count()
        return int(count)

    def select(self, k: int) -> int:
        """Return the position of set bit number `k`, counted from 0."""
        block = int(np.searchsorted(self.directory, k, "right")) - 1
        packed = self.packed[block * SUPERBLOCK : (block + 1) * SUPERBLOCK]
        positions = np.flatnonzero(np.unpackbits(packed, bitorder="little"))
        return block * SUPERBLOCK * 8 + int(positions[k - self.directory[block]])
