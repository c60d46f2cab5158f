"""Accumulated variables: rates per second, and proof that the files accumulate as the recipe declares.

ERA5 gives the total of the last hour; ERA5-Land gives the total since 00 UTC, so that 00 UTC holds the previous
day's. Headers do not tell the two apart, values do, by the day's own clock: totals fall at their reset and at no other
time, hourly values fall at any. Less than the noise of packing is no fall: totals sink by the step of their packing.
Monthly means are of whole days' totals, whatever hour they are stamped with; their values tell nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.era5.cf_units import same_unit
from tasks.era5.channels import DAILY_MEAN, Channel
from tasks.era5.timeline import Cadence, utc

_DAY = 86_400
_SAMPLE_CELLS = 65_536
_NOISE = 1e-4
"""Changes below this share of the largest value may be packing noise."""
_FALLING_SHARE = 0.01
_RESETTING_SHARE = 0.5
_FINE_STEPS = 8
"""Steps per day from which on the hours of falls tell resets apart from the course of the day."""
_OVER_MIDNIGHT = 3
"""Changes after 00 UTC that may all be growth by chance: the first hour of a day may have more than the day before."""
_TRACE = {"m": 1e-6, "mm": 1e-3, "kg m**-2": 1e-3, "J m**-2": 2000.0}
"""Amounts that mean nothing, by unit: a thousandth of a millimetre of water, or half a W m**-2 for an hour."""
_SHORTEST_SEQUENCE = 6
_TELLING_SPAN = 18 * 3600
_TWO_SIGNED = frozenset({"slhf", "sshf", "e", "pev", "es", "str", "strc", "ewss", "nsss", "lgws", "mgws"})
"""Net fluxes, whose total may fall as well as grow."""


@dataclass(frozen=True, slots=True)
class _Sample:
    """A thinned plane: enough cells to see how values change, few enough to keep a day of them."""

    time: int
    values: NDArray[np.float32]


def _trace(units: str) -> float:
    """Return an amount that means nothing; 0 for units that nobody knows."""
    if units in _TRACE:
        return _TRACE[units]
    return next((amount for unit, amount in _TRACE.items() if same_unit(unit, units)), 0.0)


def seconds_accumulated(time: int) -> int:
    """Return the seconds from the last reset to a time of day: `01:00 => 3600`, `00:00 => 86400`."""
    return (time - 1) % _DAY + 1


def needs_previous(channel: Channel, cadence: Cadence, time: int) -> bool:
    """Say whether the rate at a time also takes the plane of the slot before."""
    if not channel.recipe.rate or channel.recipe.accumulation != "since_00utc" or channel.step_type == DAILY_MEAN:
        return False
    return cadence.unit == "seconds" and seconds_accumulated(time) > cadence.step


@dataclass(slots=True)
class Evidence:
    """How cells changed from one step to the next: by the hour of the earlier one, how many had an amount, and fell."""

    active: dict[int, int] = field(default_factory=dict)
    falling: dict[int, int] = field(default_factory=dict)
    grew: bool = False
    """Some day, or most of it, only grew."""

    def add(self, hour: int, active: int, falling: int) -> None:
        """Count the cells of one change."""
        self.active[hour] = self.active.get(hour, 0) + active
        self.falling[hour] = self.falling.get(hour, 0) + falling

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add what another block found, as `report` gave it."""
        for hour, (active, falling) in other["hours"].items():
            self.add(int(hour), active, falling)
        self.grew |= other["grew"]

    def report(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"hours": {str(h): [self.active[h], self.falling[h]] for h in self.active}, "grew": self.grew}

    def share(self, hour: int) -> float:
        """Return the share of cells that fell after an hour."""
        return self.falling.get(hour, 0) / max(1, self.active.get(hour, 0))

    def resets(self) -> list[int]:
        """Return the hours after which most cells fall, where these are evenly spaced and none falls at any other."""
        if len(self.active) < _FINE_STEPS:
            return []
        hours = sorted(h for h in self.active if self.share(h) >= _RESETTING_SHARE)
        spacing = 24 // max(1, len(hours))
        even = all(b - a == spacing for a, b in pairwise(hours)) and 24 % max(1, len(hours)) == 0
        others = [h for h in self.active if h not in hours]
        quiet = all(self.share(h) <= _FALLING_SHARE for h in others) and len(others) > len(hours)
        return hours if even and quiet else []

    def form(self) -> str:
        """Say in words what the values are: hourly, or totals since a time of day; or that they do not tell."""
        if resets := self.resets():
            return f"totals since {' and '.join(f'{hour:02}' for hour in resets)} UTC"
        if any(self.share(h) > _FALLING_SHARE for h in self.active if h):
            return "hourly values"
        return "values that do not tell their form"

    def contradiction(self, channel: Channel) -> str | None:
        """Return why values are not what the recipe declares; None where they may be."""
        declared, resets = channel.recipe.accumulation, self.resets()
        only_grew = self.grew and not self.active.get(0)
        if declared == "hourly" and (resets == [0] or only_grew):
            return f"{channel.name} is declared hourly, but looks like totals since 00 UTC; declare since_00utc"
        if declared in ("hourly", "since_00utc") and resets and resets != [0]:
            return (
                f"{channel.name} is declared {declared}, but looks like {self.form()}, which cannot be stored; take "
                f"the differences of its steps (`cdo deltat`) and declare it hourly"
            )
        if self.never_falls() and (declared == "since_00utc" or (declared == "hourly" and self.grew)):
            return (
                f"{channel.name} is declared {declared}, but never falls, not even after 00 UTC: it looks like a total "
                f"that goes on over days; take the differences of its steps (`cdo deltat`) and declare it hourly"
            )
        return None

    def never_falls(self) -> bool:
        """Say whether amounts only grow from hour to hour, and over 00 UTC more than a few times."""
        told = len(self.active) >= _FINE_STEPS and self.active.get(0, 0) >= _OVER_MIDNIGHT
        return told and all(self.share(hour) <= _FALLING_SHARE for hour in self.active)


class Accumulation:
    """The accumulated planes of one channel, met in the order of time."""

    def __init__(self, channel: Channel, cadence: Cadence, quantum: float = 0.0) -> None:
        self._channel = channel
        self._quantum = quantum
        self._trace = _trace(channel.units_in_files)
        self.evidence = Evidence()
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
        if self._channel.step_type == DAILY_MEAN:
            plane /= np.float32(_DAY)
            return True
        self._require_known_length(time)
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

    def _require_known_length(self, time: int) -> None:
        """Refuse monthly values that may be of hours or of days; at 00 UTC, a total since 00 UTC is of a whole day."""
        if self._cadence.unit == "months" and (self._channel.recipe.accumulation == "hourly" or time % _DAY):
            raise ValueError(
                f"{self._file}: {self._channel.name} at {utc(time)} is a month's value, which does not tell whether it "
                f"is of an hour or of a day; if of a day, mark it (`ncatted -a "
                f"GRIB_stepType,{self._channel.variable},o,c,{DAILY_MEAN}`) and declare since_00utc, else divide it by "
                f"its seconds (`cdo divc,3600`) and declare mean_rate"
            )

    def finish(self) -> None:
        """Check what is known of the last day."""
        if self._channel.recipe.accumulation == "mean_rate":
            return
        values = [s.values for s in ([self._reset] if self._reset else []) + self._day]
        one_sign = _one_sign(np.stack(values)) if len(values) > 1 else None
        if one_sign is None or self._channel.variable in _TWO_SIGNED:
            return
        self._count(one_sign)
        if self._channel.recipe.accumulation == "hourly":
            self._require_hourly(one_sign)

    def _noise(self, values: NDArray[np.float32]) -> float:
        """Return what two values may differ by without a reason."""
        return max(_NOISE * float(values.max()), 2 * self._quantum, self._trace)

    def _observe(self, time: int, plane: NDArray[np.float32]) -> None:
        """Add a plane to the steps of its accumulation day, 01 to 24 UTC; a new day has the old one checked."""
        if self._day and (time - 1) // _DAY != (self._day[-1].time - 1) // _DAY:
            self.finish()
            last = self._day[-1]
            self._reset = last if last.time % _DAY == 0 and time - last.time < _DAY else None
            self._day = []
        stride = max(1, int(np.ceil(np.sqrt(plane.size / _SAMPLE_CELLS))))
        self._day.append(_Sample(time, plane[::stride, ::stride].ravel().copy()))

    def _count(self, values: NDArray[np.float32]) -> None:
        """Count what falls from step to step; a total that falls before its reset is a `ValueError`."""
        noise = self._noise(values)
        steps = ([self._reset] if self._reset else []) + self._day
        for (before, after), (earlier, later) in zip(pairwise(steps), pairwise(values), strict=True):
            active = earlier > 2 * noise
            falls = active & (later < earlier - noise)
            self.evidence.add(before.time % _DAY // 3600, int(active.sum()), int(falls.sum()))
            share = falls.sum() / max(1, active.sum())
            totals = self._channel.recipe.accumulation == "since_00utc"
            if totals and before is not self._reset and share > _FALLING_SHARE:
                raise ValueError(
                    f"{self._file}: {self._channel.name} falls between {utc(before.time)} and {utc(after.time)} at "
                    f"{share:.0%} of its cells, which a total since 00 UTC cannot; it looks hourly: declare that"
                )

    def _require_hourly(self, values: NDArray[np.float32]) -> None:
        grows = _grows(values[-len(self._day) :], self._noise(values))
        if grows is None:
            return
        self.evidence.grew |= self._day[-1].time - self._day[0].time >= _TELLING_SPAN
        if self._reset is None:
            return
        total, first, last = values[0][grows], values[1][grows], values[-1][grows]
        noise = self._noise(values)
        if float(((total > 2 * first + noise) & (total > last / 2)).mean()) > _RESETTING_SHARE:
            raise ValueError(
                f"{self._file}: {self._channel.name} never falls from {utc(self._day[0].time)} to "
                f"{utc(self._day[-1].time)}, and hourly values do; it looks like a total since 00 UTC (ERA5-Land): "
                f"declare accumulation: since_00utc"
            )


def _grows(steps: NDArray[np.float32], noise: float) -> NDArray[np.bool_] | None:
    """Return the cells that grow over one day, where none falls and they do so for hours; None elsewhere."""
    if len(steps) < _SHORTEST_SEQUENCE:
        return None
    growing: NDArray[np.bool_] = steps[-1] > steps[0] + noise
    rises = np.diff(steps, axis=0)
    if not growing.any() or (rises < -noise).any(axis=0).mean() > 0.001:
        return None
    hours = np.median((rises[:, growing] > noise).sum(axis=0))
    return growing if hours >= max(3, len(steps) // 4) else None


def _one_sign(values: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Return the magnitudes (steps, cells) of cells without NaN; None where there is none or signs are mixed."""
    values = values[:, np.isfinite(values).all(axis=0)]
    if not values.size:
        return None
    noise = _NOISE * float(np.abs(values).max())
    if values.min() >= -noise:
        return values
    return -values if values.max() <= noise else None
