"""Accumulated variables: rates per second, and proof that the files accumulate as the recipe declares.

ERA5 gives the total of the last hour; ERA5-Land gives the total since 00 UTC, so that 00 UTC holds the previous
day's. Headers do not tell the two apart, values do: a total since 00 UTC never falls before the next reset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tasks.era5.channels import Channel
from tasks.era5.timeline import Cadence, utc

_DAY = 86_400
_SAMPLE_CELLS = 65_536
_NOISE = 1e-4
"""Changes below this share of the largest value may be packing noise."""
_FALLING_SHARE = 0.01
_SHORTEST_SEQUENCE = 6
_TELLING_SPAN = 18 * 3600
_TWO_SIGNED = frozenset({"slhf", "sshf", "e", "pev", "es", "str", "strc", "ewss", "nsss", "lgws", "mgws"})
"""Net fluxes, whose total may fall as well as grow."""


@dataclass(frozen=True, slots=True)
class _Sample:
    """A thinned plane: enough cells to see how values change, few enough to keep a day of them."""

    time: int
    values: NDArray[np.float32]


def seconds_accumulated(time: int) -> int:
    """Return the seconds from the last reset to a time of day: `01:00 => 3600`, `00:00 => 86400`."""
    return (time - 1) % _DAY + 1


def needs_previous(channel: Channel, cadence: Cadence, time: int) -> bool:
    """Say whether the rate at a time also takes the plane of the slot before."""
    if not channel.recipe.rate or channel.recipe.accumulation != "since_00utc":
        return False
    return cadence.unit == "seconds" and seconds_accumulated(time) > cadence.step


class Accumulation:
    """The accumulated planes of one channel, met in the order of time."""

    def __init__(self, channel: Channel, cadence: Cadence) -> None:
        self._channel = channel
        self._cadence = cadence
        self._previous: tuple[int, NDArray[np.float32]] | None = None
        self._day: list[_Sample] = []
        self._reset: _Sample | None = None
        self._file = ""

    def remember(self, time: int, plane: NDArray[np.float32]) -> None:
        """Take a plane (latitude, longitude) as the predecessor of the next one."""
        self._previous = (time, plane.copy())

    def convert(self, time: int, plane: NDArray[np.float32], file: str) -> bool:
        """Turn a plane into what is stored, in place; False where it needs a predecessor that is missing.

        `ValueError` where the values contradict the declared accumulation.
        """
        self._file = file
        self._observe(time, plane)
        recipe = self._channel.recipe
        if not recipe.rate or recipe.accumulation == "mean_rate":
            return True
        if recipe.accumulation == "hourly":
            plane /= np.float32(3600)
            return True
        before = self._previous
        self.remember(time, plane)
        if not needs_previous(self._channel, self._cadence, time):
            plane /= np.float32(seconds_accumulated(time))
            return True
        if before is None or before[0] != time - self._cadence.step:
            return False
        plane -= before[1]
        plane /= np.float32(self._cadence.step)
        return True

    def finish(self) -> None:
        """Check what is known of the last day."""
        if self._channel.recipe.accumulation == "since_00utc":
            self._require_no_fall()
        elif self._channel.recipe.accumulation == "hourly":
            self._require_hourly()

    def _observe(self, time: int, plane: NDArray[np.float32]) -> None:
        """Add a plane to the steps of its accumulation day, 01 to 24 UTC; a new day has the old one checked."""
        if self._day and (time - 1) // _DAY != (self._day[-1].time - 1) // _DAY:
            self.finish()
            last = self._day[-1]
            self._reset = last if last.time % _DAY == 0 and time - last.time < _DAY else None
            self._day = []
        stride = max(1, int(np.ceil(np.sqrt(plane.size / _SAMPLE_CELLS))))
        self._day.append(_Sample(time, plane[::stride, ::stride].ravel().copy()))

    def _require_no_fall(self) -> None:
        falls = _falling_shares(self._day) if self._channel.variable not in _TWO_SIGNED else []
        for (before, after), share in zip(pairwise(self._day), falls, strict=False):
            if share > _FALLING_SHARE:
                raise ValueError(
                    f"{self._file}: {self._channel.name} falls between {utc(before.time)} and {utc(after.time)} at "
                    f"{share:.0%} of its cells, which a total since 00 UTC cannot; it looks hourly: declare that"
                )

    def _require_hourly(self) -> None:
        if _only_grows(self._day, self._reset):
            raise ValueError(
                f"{self._file}: {self._channel.name} never falls from {utc(self._day[0].time)} to "
                f"{utc(self._day[-1].time)}, and hourly values do; it looks like a total since 00 UTC (ERA5-Land): "
                f"declare accumulation: since_00utc"
            )


def _falling_shares(day: Sequence[_Sample]) -> list[float]:
    """Return, per pair of steps, the share of cells with a value whose magnitude falls; none for mixed signs."""
    values = _one_sign(np.stack([s.values for s in day])) if len(day) > 1 else None
    if values is None:
        return []
    noise = _NOISE * values.max()
    active = values > noise
    falls = (values[1:] < values[:-1] - noise) & active[:-1]
    return (falls.sum(axis=1) / np.maximum(active[:-1].sum(axis=1), 1)).tolist()


def _only_grows(day: Sequence[_Sample], reset: _Sample | None) -> bool:
    """Say whether the steps of one day look like totals since its beginning; `reset` is its 00 UTC."""
    if len(day) < _SHORTEST_SEQUENCE:
        return False
    values = _one_sign(np.stack([s.values for s in ([reset] if reset else []) + list(day)]))
    if values is None:
        return False
    noise = _NOISE * values.max()
    steps = values[-len(day) :]
    growing = steps[-1] > steps[0] + noise
    rises = np.diff(steps, axis=0)
    if not growing.any() or (rises < -noise).any(axis=0).mean() > 0.001:
        return False
    if np.median((rises[:, growing] > noise).sum(axis=0)) < max(3, len(day) // 4):
        return False
    if day[-1].time - day[0].time >= _TELLING_SPAN:
        return True
    total, first, last = values[0][growing], steps[0][growing], steps[-1][growing]
    return reset is not None and float(((total > 2 * first + noise) & (total > last / 2)).mean()) > 0.5


def _one_sign(values: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Return the magnitudes (steps, cells) of cells without NaN; None where there is none or signs are mixed."""
    values = values[:, np.isfinite(values).all(axis=0)]
    if not values.size:
        return None
    noise = _NOISE * float(np.abs(values).max())
    if values.min() >= -noise:
        return values
    return -values if values.max() <= noise else None
