"""What hidden values can be guessed from without a model: the climate, the nearest time, the nearest values."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
from scipy.ndimage import binary_dilation
from scipy.spatial import QhullError

from storage.window_dataset import WindowDataset

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
CLIMATE_STEPS = 512
"""Most steps of the training period that the climate is the mean of, evenly spaced."""
SECONDS_PER_DAY = 86_400
FEWEST_POINTS = 5  # of a triangulation in three dimensions
NEIGHBOURS = np.ones((3, 3, 3), bool)
SHIFT = 1e-6


class Climatology:
    """Mean of every channel, cell and time of day over the training period, normalised; 0 where there is none."""

    def __init__(self, windows: WindowDataset) -> None:
        self._store = store = windows.store
        self._windows = windows
        blocks = windows.training_set.blocks("train")
        steps = np.concatenate([np.arange(block.first, block.stop) for block in blocks])
        steps = steps[np.unique(np.linspace(0, len(steps) - 1, min(len(steps), CLIMATE_STEPS)).astype(int))]
        self._slots = {int(slot): k for k, slot in enumerate(np.unique(self._time_of_day(steps)))}
        mean, scale = (values[:, None, None] for values in windows.training_set.normalisation())
        shape = (len(self._slots), len(store.channels), *store.geometry.plane)
        total, count = np.zeros(shape, np.float64), np.zeros(shape, np.int32)
        for step, slot in zip(steps.tolist(), self._time_of_day(steps).tolist(), strict=True):
            field = (store.read(step, 0, 0, (1, *store.geometry.plane))[:, 0] - mean) * scale
            valid = np.isfinite(field)
            total[self._slots[slot]] += np.where(valid, field, 0)
            count[self._slots[slot]] += valid
        self._mean = (total / np.maximum(count, 1)).astype(np.float32)
        self._overall = (total.sum(0) / np.maximum(count.sum(0), 1)).astype(np.float32)

    def _time_of_day(self, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        seconds: NDArray[np.int64] = self._store.time[steps].astype(np.int64) % SECONDS_PER_DAY
        return seconds

    def window(self, split: str, index: int) -> Floats:
        """Return the climate of window `index` of a split, (C, T, H, W)."""
        prepared = self._windows.training_set
        t, y, x = prepared.origin(split, index)
        steps, height, width = prepared.grid.shape
        columns = np.arange(x, x + width) % self._store.geometry.plane[1]
        slots = self._time_of_day(np.arange(t, t + steps)).tolist()
        planes = [self._mean[self._slots[s]] if s in self._slots else self._overall for s in slots]
        return np.stack([plane[:, y : y + height][:, :, columns] for plane in planes], 1)


def persistence(data: Floats, visible: Flags, climate: Floats) -> Floats:
    """Return at each cell the visible value that is nearest in time, the climate where there is none.

    All arrays are (C, T, H, W). Of two values equally near, the earlier one is taken.
    """
    guess = climate.copy()
    reach = np.full(data.shape, np.inf)
    steps = np.arange(data.shape[1])
    for step in steps.tolist():
        distance = np.abs(steps - step) + 0.25 * (step > steps)
        nearer = visible[:, step, None] & (distance[None, :, None, None] < reach)
        guess = np.where(nearer, data[:, step, None], guess)
        reach = np.where(nearer, distance[None, :, None, None], reach)
    return guess


def interpolation(data: Floats, visible: Flags, climate: Floats) -> Floats:
    """Return hidden cells by linear interpolation in time, latitude and longitude of the visible ones.

    All arrays are (C, T, H, W), and all axes count in cells. Outside of the visible cells' convex hull the nearest
    visible value stands, and the climate in a channel without enough of them.
    """
    guess = np.where(visible, data, climate)
    alike: dict[bytes, list[int]] = {}
    for channel, seen in enumerate(visible):
        alike.setdefault(np.packbits(seen).tobytes(), []).append(channel)
    shifts = _shifts(data.shape[1:])
    for channels in alike.values():
        seen = visible[channels[0]]
        where, near = np.argwhere(~seen), seen & binary_dilation(~seen, NEIGHBOURS)
        points = np.argwhere(near).astype(np.float64)
        if np.count_nonzero(seen) < FEWEST_POINTS or not len(where):
            continue
        found = _linear(points, shifts[near], data[channels][:, near].T, where)
        for k, channel in enumerate(channels):
            guess[channel][~seen] = found[:, k]
    return guess


def _linear(
    points: NDArray[np.float64], shifts: NDArray[np.float64], values: Floats, where: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Interpolate between visible cells that have a hidden neighbour; no other is a corner of a simplex that matters.

    The sphere around a simplex holds no visible cell, and a sphere through a cell whose neighbours are all visible is
    either too small to reach a hidden one, or large enough to hold one of those neighbours.
    """
    found: NDArray[np.float64]
    try:
        found = LinearNDInterpolator(points + shifts, values)(where)
    except QhullError:  # all points lie in one plane
        found = np.full((len(where), values.shape[1]), np.nan)
    outside = ~np.isfinite(found).all(1)
    if outside.any():
        found[outside] = NearestNDInterpolator(points, values)(where[outside])
    return found


@cache
def _shifts(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Shifts of a millionth of a cell, (*shape, 3): points of a regular grid have no one triangulation."""
    return np.random.default_rng(0).uniform(-SHIFT, SHIFT, (*shape, len(shape)))
