"""Which windows of a store are usable: every channel is there at every step, and few enough values are NaN."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.window_store import WindowStore, pieces
from storage.windows import Axis, WindowGrid

BATCH = 16  # time origins judged at once; a multiple of 8, so that a batch fills whole bytes of bits


@dataclass(frozen=True, slots=True)
class Judgement:
    """Packed bits of the usable windows, and counts of windows per time origin and verdict."""

    packed: NDArray[np.uint8]
    usable: NDArray[np.int64]
    missing: NDArray[np.int64]
    too_many_nan: NDArray[np.int64]


def judge_windows(
    store: WindowStore, grid: WindowGrid, max_nan_share: float, origins: Iterable[tuple[int, int]]
) -> Judgement:
    """Judge the windows of these ranges of time origins; all others are not usable and not counted.

    The NaN share is exact: it comes from `nan_cells` where windows cover whole cells or cells that are all or not at
    all NaN, and from the data itself where that leaves a window undecided.
    """
    count = grid.time.count
    asked = np.zeros(count, bool)
    for low, high in origins:
        asked[low:high] = True
    gaps = np.concatenate([[0], np.cumsum(~store.side("valid").all(axis=1))])
    first = grid.time.origins()
    missing = asked & (gaps[first + grid.time.length] > gaps[first])
    complete = asked & ~missing
    nan_filter = _NanFilter(store, grid, max_nan_share)
    packed = np.zeros(-(-len(grid) // 8), np.uint8)
    usable = np.zeros(count, np.int64)
    for low in range(0, count, BATCH):
        batch = slice(low, min(low + BATCH, count))
        if not complete[batch].any():
            continue
        bits = np.zeros((batch.stop - low, grid.rows.count, grid.cols.count), bool)
        bits[complete[batch]] = True
        if max_nan_share < 1:
            bits &= ~nan_filter.exceeds(low, complete[batch])
        usable[batch] = bits.sum(axis=(1, 2))
        start = low * grid.per_time // 8
        found = np.packbits(bits.reshape(-1), bitorder="little")
        packed[start : start + len(found)] = found
    return Judgement(packed, usable, missing * grid.per_time, complete * grid.per_time - usable)


class _NanFilter:
    """Counts NaN per window from NaN per cell, as products of the axes' overlap matrices."""

    def __init__(self, store: WindowStore, grid: WindowGrid, max_nan_share: float) -> None:
        self._store = store
        self._grid = grid
        self._limit = max_nan_share
        self._pixels = int(np.prod(grid.shape))
        size = store.geometry.layout.chunk_space
        heights, widths = (_cell_sizes(length, size) for length in store.geometry.plane)
        self._cell_pixels = np.outer(heights, widths)
        rows, cols = _overlaps(grid.rows, heights), _overlaps(grid.cols, widths)
        self._overlap = rows, cols.T
        self._whole = (rows == heights).astype(float), (cols == widths).astype(float).T
        self._touched = (rows > 0).astype(float), (cols > 0).astype(float).T

    def exceeds(self, low: int, wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Say for the windows of `wanted` time origins from `low` on whether any channel exceeds the limit."""
        axis = self._grid.time
        first = axis.origins()[low : low + len(wanted)]
        nan = self._store.side("nan_cells", int(first[0]), int(first[-1]) + axis.length)
        nan = nan[:, nan.any(axis=(0, 2, 3))]
        if not nan.size:
            return np.zeros((len(wanted), self._grid.rows.count, self._grid.cols.count), bool)
        full = nan == self._cell_pixels
        partial = np.where(full, 0, nan)
        inside = _sum_over(partial, self._whole)
        least = self._per_window(first, _sum_over(full, self._overlap) + inside)
        most = least + self._per_window(first, _sum_over(partial, self._touched) - inside)
        exceeding: NDArray[np.bool_] = np.any(least / self._pixels > self._limit, axis=1)
        undecided = (most / self._pixels > self._limit).any(axis=1) & ~exceeding & wanted[:, None, None]
        for k, row, col in np.argwhere(undecided).tolist():
            y, x = self._grid.rows.origin(row), self._grid.cols.origin(col)
            data = self._store.read(int(first[k]), y, x, self._grid.shape)
            shares = np.isnan(data).sum(axis=(1, 2, 3)) / self._pixels
            exceeding[k, row, col] = (shares > self._limit).any()
        return exceeding

    def _per_window(self, first: NDArray[np.int64], per_step: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum over the steps of each window; `(step, ...) => (time origin, ...)`."""
        total = np.concatenate([np.zeros_like(per_step[:1]), np.cumsum(per_step, axis=0)])
        begin = first - first[0]
        return total[begin + self._grid.time.length] - total[begin]


def _sum_over(
    cells: NDArray[np.generic], weights: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Weighted sums of cells per window row and column; exact, because all are whole numbers below 2**53."""
    if not cells.any():
        return np.zeros((*cells.shape[:2], weights[0].shape[0], weights[1].shape[1]))
    return weights[0] @ cells.astype(float) @ weights[1]


def _cell_sizes(length: int, size: int) -> NDArray[np.int64]:
    return np.diff(np.append(np.arange(0, length, size), length))


def _overlaps(axis: Axis, sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how many grid lines each window shares with each cell; (windows, cells)."""
    shared = np.zeros((axis.count, len(sizes)))
    for k in range(axis.count):
        for cell, _, into in pieces(axis.origin(k), axis.length, int(sizes[0]), int(sizes.sum())):
            shared[k, cell] += into.stop - into.start
    return shared
