"""Which planes of a variable are read together: rows of HDF5 chunks, or runs of steps where planes are small."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from storage.hashing import digest
from tasks.era5.catalog import Role, Variable
from tasks.era5.timeline import Source

ROW_BYTES = 2**30
ROW_STEPS = 16
TILE_BYTES = 2**26
SMALL_PLANE_BYTES = 2**16
"""To ask the NetCDF library for a plane of this size costs about as much as what it brings."""

Steps = NDArray[np.integer]
"""Time steps of a source, by their indices in it."""


@dataclass(frozen=True, eq=False)
class Row:
    """Planes of one variable that are decoded together, in stored orientation, one after the other."""

    source: Source
    facts: Variable
    layer: int
    first: int
    steps: int
    levels: tuple[int, ...]
    """Indices along the level dimension; (0,) where there is none."""
    shape: tuple[int, int]
    values: NDArray[np.float32] | None = None
    """The planes (steps, levels, rows, columns) where they are in memory."""

    @cached_property
    def key(self) -> str:
        """Name of the planes by their content."""
        return digest(
            [self.source.member.sha256, self.facts.name_in_file, self.layer, self.first, self.steps, self.levels]
        )

    @property
    def stop(self) -> int:
        """The step after the last one."""
        return self.first + self.steps

    @property
    def size(self) -> int:
        """Bytes of all planes."""
        return self.offset(self.steps * len(self.levels))

    def offset(self, plane: int, row: int = 0, column: int = 0) -> int:
        """Return where a value lies, in bytes."""
        height, width = self.shape
        return 4 * ((plane * height + row) * width + column)

    def plane(self, step: int, level: int) -> int:
        """Return the index of a plane by its indices in the source."""
        return (step - self.first) * len(self.levels) + self.levels.index(level)

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        """Cut a plane into tiles of whole chunks, as wide as the memory for one tile of all planes allows."""
        height, width = self.shape
        cells = TILE_BYTES // (4 * self.steps * len(self.levels))
        rows, columns = _chunk(self.facts, "latitude"), _chunk(self.facts, "longitude")
        if rows * width <= cells:
            rows, columns = cells // (rows * width) * rows, width
        else:
            columns = max(1, cells // (rows * columns)) * columns
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                yield slice(top, min(top + rows, height)), slice(left, min(left + columns, width))


@dataclass(frozen=True, slots=True)
class Holding:
    """How one source holds a variable: the groups of levels that are read together, as indices in its dimension."""

    source: Source
    facts: Variable
    shape: tuple[int, int]
    groups: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, source: Source, variable: str, wanted: Collection[int | None], shape: tuple[int, int]) -> Self:
        """Describe a variable of which these levels are wanted."""
        facts = next(v for v in source.member.variables if v.name == variable)
        indices = [index for index, level in enumerate(facts.levels or (None,)) if level in wanted]
        reach = 1 if is_small(shape) else 0
        return cls(source, facts, shape, _groups(indices, _chunk(facts, "level"), reach))

    @property
    def chunked(self) -> bool:
        """True where planes share HDF5 chunks."""
        return _chunk(self.facts, "time") * _chunk(self.facts, "level") > 1

    def level(self, level: int | None) -> tuple[int, int]:
        """Return the index of a level in hPa, or of none, and the group that it belongs to."""
        index = 0 if level is None or self.facts.levels is None else self.facts.levels.index(level)
        return index, next(number for number, levels in enumerate(self.groups) if index in levels)

    def rows(self, layer: int, group: int, steps: Steps) -> Iterator[tuple[Row, Steps]]:
        """Cut ascending steps into rows, each with its own steps: whole chunks, or what is wanted and no more.

        Large planes that share no chunks have none: they are read one by one.
        """
        levels = self.groups[group]
        step_bytes = 4 * self.shape[0] * self.shape[1] * len(levels)
        if self.chunked:
            begins, stops = _chunk_rows(steps, _chunk(self.facts, "time"), max(1, ROW_BYTES // step_bytes))
            stops = np.minimum(stops, self.source.member.length)
        elif is_small(self.shape):
            begins, stops = _runs(steps, max(1, TILE_BYTES // step_bytes))
        else:
            return
        cuts = [0, *(np.flatnonzero(np.diff(begins)) + 1).tolist(), len(steps)]
        for a, b in pairwise(cuts):
            yield self.row(layer, int(begins[a]), int(stops[a]), levels), steps[a:b]

    def row(self, layer: int, first: int, stop: int, levels: tuple[int, ...]) -> Row:
        """Return the row of these steps and levels."""
        return Row(self.source, self.facts, layer, first, stop - first, levels, self.shape)


def is_small(shape: tuple[int, int]) -> bool:
    """Say whether planes of so many rows and columns are better read together."""
    return 4 * shape[0] * shape[1] <= SMALL_PLANE_BYTES


def _chunk(facts: Variable, role: Role) -> int:
    """Return the length of a variable's HDF5 chunks along a dimension; 1 where it has none."""
    return dict(zip(facts.dimensions, facts.chunks or (), strict=False)).get(role, 1)


def _groups(indices: list[int], chunk: int, reach: int) -> tuple[tuple[int, ...], ...]:
    """Group ascending indices whose chunks are at most `reach` apart: `([0, 1, 4], 2, 1) => ((0, 1), (4,))`."""
    cuts = [n for n, (a, b) in enumerate(pairwise(indices), 1) if b // chunk - a // chunk > reach]
    return tuple(tuple(indices[a:b]) for a, b in pairwise([0, *cuts, len(indices)]))


def _chunk_rows(steps: Steps, chunk: int, most: int) -> tuple[Steps, Steps]:
    """Return, per step, where its row of whole chunks begins and ends; longer chunks are decoded in parts of `most`."""
    if chunk <= most:
        span = chunk * max(1, min(most, ROW_STEPS) // chunk)
        begins = steps // span * span
        return begins, begins + span
    chunk_begins = steps // chunk * chunk
    begins = chunk_begins + (steps - chunk_begins) // most * most
    return begins, np.minimum(begins + most, chunk_begins + chunk)


def _runs(steps: Steps, most: int) -> tuple[Steps, Steps]:
    """Return, per ascending step, where its run of at most `most` consecutive steps begins and ends."""
    first = np.flatnonzero(np.diff(steps, prepend=steps[0] - 2) != 1)
    lengths = np.diff(first, append=len(steps))
    starts, stops = np.repeat(steps[first], lengths), np.repeat(steps[first] + lengths, lengths)
    begins = starts + (steps - starts) // most * most
    return begins, np.minimum(begins + most, stops)
