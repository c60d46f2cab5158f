"""What the fields themselves say about a region's day: the numbers that a text about it is checked against."""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from storage.window_store import WindowStore
from tasks.captions.quantities import Key
from tasks.captions.region_table import Box

FREEZING = 273.15  # K
Field = NDArray[np.float64]


class FieldTruth:
    """Statistics of days over regions, from the channels that a store has.

    Extremes run over all grid points in the region and all steps of the UTC day, means are weighted by area. The total
    of precipitation is the sum of hourly values times the hours between steps: exact for hourly data.
    """

    def __init__(self, store: WindowStore) -> None:
        self._store = store
        self._days = store.time.astype("datetime64[D]")
        self._hours = float(np.median(np.diff(store.time)).astype("timedelta64[s]").astype(float)) / 3600
        self._channels = {name: k for k, name in enumerate(store.channels)}
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
        steps = np.flatnonzero(self._days == np.datetime64(day))
        rows, columns = self._cells(box)
        if not (len(steps) and len(rows) and len(columns)):
            return {}
        read = self._store.read(int(steps[0]), 0, 0, (len(steps), *self._store.geometry.plane))
        fields = read[:, :, rows][:, :, :, columns].astype(np.float64)
        weight = np.broadcast_to(np.cos(np.radians(self._store.latitude[rows]))[:, None], fields.shape[2:])
        found: dict[Key, float] = {}
        if (t := self._field(fields, "t2m")) is not None:
            found |= _extremes("temperature", t - FREEZING, weight)
        if (u := self._field(fields, "u10")) is not None and (v := self._field(fields, "v10")) is not None:
            found |= _extremes("wind", np.hypot(u, v), weight)
        if (p := self._field(fields, "msl")) is not None:
            found |= _extremes("pressure", p / 100, weight)
        if (sea := self._field(fields, "sst")) is not None:
            found |= {k: x for k, x in _extremes("sea temperature", sea - FREEZING, weight).items() if k[1] == "mean"}
        if (rain := self._field(fields, "tp")) is not None and self._store.attrs["units"]["tp"] == "m":
            total = 1000 * self._hours * rain.sum(0)
            found |= {k: x for k, x in _extremes("rain", total[None], weight).items() if k[1] != "minimum"}
        return found

    def _field(self, fields: Field, name: str) -> Field | None:
        """Return (steps, rows, columns) of a channel, None where the store has it not, or not that day."""
        if name not in self._channels or np.isnan(fields[self._channels[name]]).all():
            return None
        values: Field = fields[self._channels[name]]
        return values

    def _cells(self, box: Box | None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        latitude, longitude = self._store.latitude, self._store.longitude
        if box is None:
            return np.arange(len(latitude)), np.arange(len(longitude))
        north, west, south, east = box
        rows = (latitude <= north) & ((latitude > south) | (south == -90))
        columns = (longitude - west) % 360 < ((east - west) % 360 or 360)
        return np.flatnonzero(rows), np.flatnonzero(columns)


def _extremes(kind: str, values: Field, weight: Field) -> dict[Key, float]:
    weights = np.where(np.isfinite(values), weight, 0.0)
    mean = float(np.nansum(values * weights) / weights.sum())
    found = {"maximum": float(np.nanmax(values)), "minimum": float(np.nanmin(values)), "mean": mean}
    return {(kind, statistic): value for statistic, value in found.items()}  # type: ignore[misc]
