"""What the fields themselves say about a region's day: the numbers that a text about it is checked against."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from configs.weather import Recipe
from storage.window_store import WindowStore
from tasks.captions.quantities import Key
from tasks.captions.region_table import Box

FREEZING = 273.15  # K
HOUR = np.timedelta64(1, "h")
Field = NDArray[np.float64]
Cells = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Rows and columns."""


class FieldTruth:
    """Statistics of days over regions, from the channels that a store has.

    Extremes run over all steps of the UTC day and the grid points in the region that have a value at each, means are
    weighted by area; where a step is missing, nothing is known. The total of precipitation is the sum of hourly values
    times the hours between steps, exact for hourly data; of totals since 00 UTC it is what the next 00 UTC holds.
    """

    def __init__(self, store: WindowStore) -> None:
        self._store = store
        self._days = store.time.astype("datetime64[D]")
        self._step = np.median(np.diff(store.time)).astype("timedelta64[s]")
        self._accumulation = Recipe.model_validate(store.attrs["recipe"]).accumulation_of("tp")
        self.day = lru_cache(maxsize=4096)(self._day)

    def _day(self, day: date, box: Box | None) -> dict[Key, float]:
        """Return the known statistics by what they are of, in °C, m/s, hPa and mm; nothing for a day without data."""
        values = self._values(day, box)
        before = self._values(day - timedelta(days=1), box)
        for kind in ("temperature", "pressure"):
            if (kind, "mean") in values and (kind, "mean") in before:
                values[kind, "change"] = values[kind, "mean"] - before[kind, "mean"]
        return values

    def _values(self, day: date, box: Box | None) -> dict[Key, float]:
        steps, cells = self._steps(day), self._cells(box)
        if not (len(steps) and all(map(len, cells))):
            return {}
        fields = self._read(steps, cells)
        weight = np.broadcast_to(np.cos(np.radians(self._store.latitude[cells[0]]))[:, None], tuple(map(len, cells)))
        found: dict[Key, float] = {}
        if "t2m" in fields:
            found |= _extremes("temperature", fields["t2m"] - FREEZING, weight)
        if "u10" in fields and "v10" in fields:
            found |= _extremes("wind", np.hypot(fields["u10"], fields["v10"]), weight)
        if "msl" in fields:
            found |= _extremes("pressure", fields["msl"] / 100, weight)
        if "sst" in fields:
            sea = _extremes("sea temperature", fields["sst"] - FREEZING, weight)
            found |= {k: x for k, x in sea.items() if k[1] == "mean"}
        if (total := self._rain(day, fields, cells)) is not None:
            found |= {k: x for k, x in _extremes("rain", total, weight).items() if k[1] != "minimum"}
        return found

    def _steps(self, day: date) -> NDArray[np.intp]:
        """Return the steps of a UTC day; none where the store begins or ends within it."""
        steps = np.flatnonzero(self._days == np.datetime64(day))
        begin, end = np.datetime64(day, "s"), np.datetime64(day + timedelta(days=1), "s")
        times = self._store.time[steps]
        whole = len(steps) and times[0] - self._step < begin and times[-1] + self._step >= end
        return steps if whole else steps[:0]

    def _read(self, steps: NDArray[np.intp], cells: Cells) -> dict[str, Field]:
        """Return (steps, rows, columns) by channel; a grid point that lacks a value at any of the steps is NaN."""
        rows, columns = cells
        read = self._store.read(int(steps[0]), 0, 0, (len(steps), *self._store.geometry.plane))
        fields = read[:, :, rows][:, :, :, columns].astype(np.float64)
        known = np.isfinite(fields).all(1, keepdims=True)
        return dict(zip(self._store.channels, np.where(known, fields, np.nan), strict=True))

    def _rain(self, day: date, fields: Mapping[str, Field], cells: Cells) -> Field | None:
        """Return a day's total in mm as (1, rows, columns); None where the store does not hold it."""
        if self._store.attrs["units"].get("tp") != "m":
            return None
        if self._accumulation == "hourly":
            return 1000 * (self._step / HOUR) * fields["tp"].sum(0, keepdims=True)
        midnight = np.flatnonzero(self._store.time == np.datetime64(day + timedelta(days=1), "s"))
        if self._accumulation == "since_00utc" and len(midnight):
            return 1000 * self._read(midnight, cells)["tp"]
        return None

    def _cells(self, box: Box | None) -> Cells:
        latitude, longitude = self._store.latitude, self._store.longitude
        if box is None:
            return np.arange(len(latitude)), np.arange(len(longitude))
        north, west, south, east = box
        rows = (latitude <= north) & ((latitude > south) | (south == -90))
        columns = (longitude - west) % 360 < ((east - west) % 360 or 360)
        return np.flatnonzero(rows), np.flatnonzero(columns)


def _extremes(kind: str, values: Field, weight: Field) -> dict[Key, float]:
    there = np.isfinite(values)
    if not there.any():
        return {}
    weights = np.where(there, weight, 0.0)
    mean = float(np.nansum(values * weights) / weights.sum())
    found = {"maximum": float(np.nanmax(values)), "minimum": float(np.nanmin(values)), "mean": mean}
    return {(kind, statistic): value for statistic, value in found.items()}  # type: ignore[misc]
