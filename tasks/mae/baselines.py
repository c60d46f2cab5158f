"""What hidden values can be guessed from without a model: the climate, the nearest time, the nearest values."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
from scipy.ndimage import binary_dilation
from scipy.spatial import QhullError

from storage.training_set import normalisation
from storage.window_dataset import WindowDataset

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
CLIMATE_STEPS = 1024
"""Most training steps that the climate is fitted to, evenly spaced and as many for each time of day."""
SECONDS_PER_DAY = 86_400
SECONDS_PER_YEAR = 365.2425 * SECONDS_PER_DAY
HARMONICS = 2
LONGEST_GAP = 1 / 8
"""Of the year, between training steps: a quarter of the shortest wave that is fitted through it."""
FEWEST_POINTS = 5  # of a triangulation in three dimensions
NEIGHBOURS = np.ones((3, 3, 3), bool)
SHIFT = 1e-6
POWERS = range(-1, 4)
"""Of two, cells to a time step: the paces that are tried first."""
WIDEST = 4
"""Power of two beyond which, and beyond its opposite, a pace hardly changes what is guessed."""


class Climatology:
    """Course of the year of every channel, cell and time of day over the training period, normalised.

    It is the mean and two harmonics by least squares, or the mean alone where training steps of that time of day leave
    more than `LONGEST_GAP` of the year out. A missing value counts as the mean of its time of day; a cell without any
    is 0.
    """

    def __init__(self, windows: WindowDataset) -> None:
        self._store, self._prepared, self._statistics = windows.store, windows.training_set, windows.statistics
        steps = np.concatenate([np.arange(block.first, block.stop) for block in self._prepared.blocks("train")])
        steps = steps[self._store.side("valid")[steps].any(1)]
        seconds = self._seconds(steps) % SECONDS_PER_DAY
        self._slots = {int(slot): k for k, slot in enumerate(np.unique(seconds))}
        shape = (len(self._store.channels), *self._store.geometry.plane)
        self._fits = np.zeros((len(self._slots), 1 + 2 * HARMONICS, *shape), np.float32)
        total, count = np.zeros(self._fits.shape[1:]), np.zeros(shape, np.int64)
        most = max(1, CLIMATE_STEPS // len(self._slots))
        for slot, fit in zip(self._slots, self._fits, strict=True):
            fitted, of_slot = self._fit(_evenly(steps[seconds == slot], most))
            fit[: len(fitted)] = fitted
            total += fit * of_slot
            count += of_slot
        self._overall = (total / np.maximum(count, 1)).astype(np.float32)

    def _fit(self, steps: Ints) -> tuple[Doubles, Ints]:
        """Return the coefficients, (1 or all, C, H, W), and the number of values, (C, H, W), of a time of day."""
        seconds = self._seconds(steps)
        waves = _waves(seconds) if _longest_gap(seconds) <= LONGEST_GAP else np.ones((len(steps), 1))
        mean, scale = (values[:, None, None] for values in normalisation(self._statistics))
        plane = self._store.geometry.plane
        total, count = np.zeros((len(mean), *plane)), np.zeros((len(mean), *plane), np.int64)
        fitted, present = np.zeros((2, waves.shape[1], *total.shape))
        for step, weights in zip(steps.tolist(), np.linalg.pinv(waves).T[..., None, None, None], strict=True):
            field = (self._store.read(step, 0, 0, (1, *plane))[:, 0] - mean) * scale
            valid = np.isfinite(field)
            field = np.where(valid, field, 0)
            total += field
            count += valid
            fitted += weights * field
            present += weights * valid
        means = total / np.maximum(count, 1)
        fitted -= present * means
        fitted[0] += means
        return fitted, count

    def _seconds(self, steps: Ints) -> Ints:
        return self._store.time[steps].astype(np.int64)

    def window(self, split: str, index: int) -> Floats:
        """Return the climate of window `index` of a split, (C, T, H, W)."""
        t, y, x = self._prepared.origin(split, index)
        steps, height, width = self._prepared.grid.shape
        columns = np.arange(x, x + width) % self._store.geometry.plane[1]
        seconds = self._seconds(np.arange(t, t + steps))
        planes = []
        for slot, waves in zip((seconds % SECONDS_PER_DAY).tolist(), _waves(seconds), strict=True):
            fit = self._fits[self._slots[slot]] if slot in self._slots else self._overall
            planes.append(np.tensordot(waves, fit[:, :, y : y + height][..., columns], 1))
        return np.stack(planes, 1).astype(np.float32)


def _evenly(steps: Ints, most: int) -> Ints:
    """Return up to so many of the steps, evenly spaced."""
    return steps[np.linspace(0, len(steps) - 1, min(len(steps), most)).astype(int)]


def _waves(seconds: Ints) -> Doubles:
    """Return 1 and the harmonics of the year, (N, 5), at times (N,) since 1970."""
    angle = 2 * np.pi * np.arange(1, HARMONICS + 1) * seconds[:, None] / SECONDS_PER_YEAR
    return np.concatenate([np.ones((len(seconds), 1)), np.cos(angle), np.sin(angle)], 1)


def _longest_gap(seconds: Ints) -> float:
    """Return the longest stretch of the year, 0 to 1, without any of these times, whatever their years."""
    at = np.sort(seconds / SECONDS_PER_YEAR % 1)
    return float(np.diff(at, append=at[0] + 1).max())


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


def interpolation(data: Floats, visible: Flags, climate: Floats, paces: Doubles) -> Floats:
    """Return hidden cells by linear interpolation of what visible ones depart from the climate by.

    It runs in time, latitude and longitude, which count in cells; `paces`, (C,), says how many a time step is. All
    other arrays are (C, T, H, W). Outside of the visible cells' convex hull the nearest departure stands, and none in a
    channel without enough of them.
    """
    guess, departures = np.where(visible, data, climate), data - climate
    alike: dict[tuple[bytes, float], list[int]] = {}
    for channel, (seen, pace) in enumerate(zip(visible, paces.tolist(), strict=True)):
        alike.setdefault((np.packbits(seen).tobytes(), pace), []).append(channel)
    shifts = _shifts(data.shape[1:])
    for (_, pace), channels in alike.items():
        seen = visible[channels[0]]
        size = np.array([pace, 1, 1])
        where, near = np.argwhere(~seen), seen & binary_dilation(~seen, NEIGHBOURS)
        if np.count_nonzero(seen) < FEWEST_POINTS or not len(where):
            continue
        found = _linear(np.argwhere(near) * size, shifts[near] * size, departures[channels][:, near].T, where * size)
        for k, channel in enumerate(channels):
            guess[channel][~seen] += found[:, k]
    return guess


def _linear(points: Doubles, shifts: Doubles, values: Floats, where: Doubles) -> Doubles:
    """Interpolate between visible cells that have a hidden neighbour; no other is a corner of a simplex that matters.

    The sphere around a simplex holds no visible cell, and a sphere through a cell whose neighbours are all visible is
    either too small to reach a hidden one, or large enough to hold one of those neighbours, whatever a cell's sides.
    """
    found: Doubles
    try:
        found = LinearNDInterpolator(points + shifts, values)(where)
    except QhullError:  # all points lie in one plane
        found = np.full((len(where), values.shape[1]), np.nan)
    outside = ~np.isfinite(found).all(1)
    if outside.any():
        found[outside] = NearestNDInterpolator(points, values)(where[outside])
    return found


@cache
def _shifts(shape: tuple[int, ...]) -> Doubles:
    """Shifts of a millionth of a cell, (*shape, 3): points of a regular grid have no one triangulation."""
    return np.random.default_rng(0).uniform(-SHIFT, SHIFT, (*shape, len(shape)))


def best_paces(errors: Callable[[float], Doubles]) -> Doubles:
    """Return the pace of `interpolation` with the smallest error for each channel, (C,): a power of two.

    `errors` returns the sums of squared errors of all channels, (C,), at one pace for all. Where the best pace is the
    smallest or the largest that was tried, the next one is tried too. Of equals, that nearest to 1 is taken.
    """
    found = {power: errors(2.0**power) for power in POWERS}
    while True:
        powers = sorted(found, key=abs)
        best = np.array(powers)[np.stack([found[power] for power in powers]).argmin(0)]
        low, high = min(powers), max(powers)
        wider = [power for power, edge in ((low - 1, low), (high + 1, high)) if edge in best and abs(power) <= WIDEST]
        if not wider:
            return np.exp2(best)
        found |= {power: errors(2.0**power) for power in wider}
