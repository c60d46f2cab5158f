"""What happened in a region on a day, in numbers: computed from the sample fields, the truth behind every caption."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from configs.weather import SampleSource
from tasks.samples.weather_earth import Grid, sample_grid, sun_height
from tasks.samples.weather_fields import Batch, day_batches
from tasks.samples.weather_regions import Region, regions_of

Map = NDArray[np.float64]

STATISTICS: dict[str, tuple[str, str, str]] = {
    "t_max": ("t2m", "max", "degC"),
    "t_min": ("t2m", "min", "degC"),
    "t_mean": ("t2m", "mean", "degC"),
    "t_change": ("t2m", "mean_change", "degC"),
    "wind_max": ("wind10", "max", "m s**-1"),
    "wind_mean": ("wind10", "mean", "m s**-1"),
    "wind_from": ("wind10", "mean_direction", "degrees"),
    "msl_min": ("msl", "min", "hPa"),
    "msl_min_latitude": ("msl", "min_latitude", "degrees_north"),
    "msl_min_longitude": ("msl", "min_longitude", "degrees_east"),
    "msl_max": ("msl", "max", "hPa"),
    "msl_mean": ("msl", "mean", "hPa"),
    "msl_change": ("msl", "mean_change", "hPa"),
    "rain_max": ("tp", "max_of_day_total", "mm"),
    "rain_mean": ("tp", "mean_of_day_total", "mm"),
    "wet_share": ("tp", "area_with_1mm", "%"),
    "convective_share": ("cp", "share_of_tp", "%"),
    "snow_share": ("tp", "share_below_0.5degC", "%"),
    "clearness": ("ssrd", "share_of_top_of_atmosphere", "%"),
    "fog_share": ("t2m-d2m", "area_and_time_below_0.5K_and_3m/s", "%"),
    "sea_mean": ("sst", "mean", "degC"),
}
"""Key -> (variable, statistic, unit) in the truth file.

Steps of a day are those with its UTC date. `max` and `min` run over all points and steps, `mean` is weighted by area.
Day totals are step_hours times the sum of the hourly values, exact for hourly data. Changes are those of the
mean since the day before. Directions say where the wind comes from. `share_of_top_of_atmosphere` compares with the sun
above the atmosphere in the middle of the same hours.
"""

Values = dict[str, float]
"""Statistic key -> value; a key is absent where it has no value (no sea, no rain, no sun, no main wind
direction, no day before)."""


@dataclass(slots=True)
class _DayMaps:
    """Maps of one day, added up batch by batch so that memory does not grow with the number of steps."""

    steps: int
    sums: dict[str, Map]
    highs: dict[str, Map]
    lows: dict[str, Map]


def _day_maps(config: SampleSource, grid: Grid, day: date) -> _DayMaps:
    maps = _DayMaps(0, {}, {}, {})
    for batch in day_batches(config, day, pressure=False):
        maps.steps += len(batch.times)
        summed, extreme = _ingredients(grid, batch)
        for name, values in summed.items():
            maps.sums[name] = maps.sums.get(name, 0) + values.sum(axis=0, dtype=np.float64)
        for name, values in extreme.items():
            high, low = values.max(axis=0), values.min(axis=0)
            maps.highs[name] = np.maximum(maps.highs.get(name, high), high)
            maps.lows[name] = np.minimum(maps.lows.get(name, low), low)
    return maps


def _ingredients(grid: Grid, batch: Batch) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
    """Fields to add up and fields to take extremes of, as (step, latitude, longitude)."""
    single = batch.single
    wind = np.hypot(single["u10"], single["v10"])
    middle = batch.times.astype(np.int64) / 3600 - 0.5
    above = 3600 * 1361 * np.maximum(sun_height(grid.latitude, grid.longitude, middle), 0)
    extreme = {"t2m": single["t2m"], "msl": single["msl"], "wind": wind}
    summed = extreme | {name: single[name] for name in ("u10", "v10", "tp", "cp", "ssrd", "sst")}
    summed["snow"] = np.where(single["t2m"] < 273.65, single["tp"], 0)
    summed["fog"] = (single["t2m"] - single["d2m"] < 0.5) & (wind < 3)
    summed["above"] = above
    return summed, extreme


def _region_values(config: SampleSource, grid: Grid, maps: _DayMaps, region: Region) -> Values:
    box = np.ix_(region.rows, region.columns)
    weight = np.broadcast_to(
        np.cos(np.radians(grid.latitude[region.rows])).clip(1e-6)[:, None],
        (len(region.rows), len(region.columns)),
    )

    def mean(name: str) -> float:
        return float(np.average(maps.sums[name][box], weights=weight)) / maps.steps

    totals = 1000 * config.step_hours * maps.sums["tp"][box]
    low = maps.lows["msl"][box]
    row, column = np.unravel_index(int(low.argmin()), low.shape)
    values = {
        "t_max": float(maps.highs["t2m"][box].max()) - 273.15,
        "t_min": float(maps.lows["t2m"][box].min()) - 273.15,
        "t_mean": mean("t2m") - 273.15,
        "wind_max": float(maps.highs["wind"][box].max()),
        "wind_mean": mean("wind"),
        "msl_min": float(low.min()) / 100,
        "msl_min_latitude": float(grid.latitude[region.rows[row]]),
        "msl_min_longitude": float((grid.longitude[region.columns[column]] + 180) % 360 - 180),
        "msl_max": float(maps.highs["msl"][box].max()) / 100,
        "msl_mean": mean("msl") / 100,
        "rain_max": float(totals.max()),
        "rain_mean": float(np.average(totals, weights=weight)),
        "wet_share": 100 * float(np.average(totals >= 1, weights=weight)),
        "fog_share": 100 * mean("fog"),
    }
    if np.hypot(mean("u10"), mean("v10")) >= 0.4 * values["wind_mean"]:
        values["wind_from"] = float(np.degrees(np.arctan2(-mean("u10"), -mean("v10")))) % 360
    if values["rain_mean"] > 0:
        values["convective_share"] = 100 * mean("cp") / mean("tp")
        values["snow_share"] = 100 * mean("snow") / mean("tp")
    if mean("above") > 1e5:  # J/m2 in the mean hour: there is a day to speak of
        values["clearness"] = 100 * mean("ssrd") / mean("above")
    sea = ~np.isnan(maps.sums["sst"][box])
    if sea.any():
        values["sea_mean"] = float(np.average(maps.sums["sst"][box][sea], weights=weight[sea])) / maps.steps - 273.15
    return values


def day_statistics(config: SampleSource, day: date) -> dict[str, Values]:
    """The statistics of every region of the sample on one UTC day, without changes from the day before."""
    grid = sample_grid(config)
    maps = _day_maps(config, grid, day)
    return {region.name: _region_values(config, grid, maps, region) for region in regions_of(grid)}


def with_changes(today: dict[str, Values], before: dict[str, Values]) -> dict[str, Values]:
    """The statistics of a day completed by its changes since the day before."""
    return {
        region: values
        | {
            "t_change": values["t_mean"] - before[region]["t_mean"],
            "msl_change": values["msl_mean"] - before[region]["msl_mean"],
        }
        for region, values in today.items()
    }


def truth_rows(day: date, statistics: dict[str, Values]) -> Iterable[tuple[str, str, str, str, str, str]]:
    """Rows of the truth file: date, region, variable, statistic, value (4 decimals), unit."""
    for region, values in statistics.items():
        for key, value in values.items():
            variable, statistic, unit = STATISTICS[key]
            yield f"{day}", region, variable, statistic, f"{value:.4f}", unit
