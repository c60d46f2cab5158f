"""The units of a sample: which files it consists of and which days each of them holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from typing import Literal

from configs.weather import SampleSource
from tasks.samples.weather_fields import PRESSURE_LEVEL, SINGLE_LEVEL


@dataclass(frozen=True, slots=True)
class SampleUnit:
    """The smallest piece of a sample that is written whole: a month, or a day in the `single` layout."""

    id: str
    """Unique within the sample, e.g. `2024-01` or `captions-2024-01`."""
    kind: Literal["fields", "captions"]
    first: date
    days: int
    files: tuple[str, ...]
    """Paths relative to the sample's folder."""

    def dates(self) -> Iterator[date]:
        """Every day of the unit, in order."""
        return (self.first + timedelta(days=day) for day in range(self.days))


def sample_units(config: SampleSource) -> list[SampleUnit]:
    """All units of a sample: fields in order of time, then captions in order of time.

    Every unit can be written on its own, in any order and process.
    """
    days = [config.start + timedelta(days=day) for day in range(config.days)]
    months = [tuple(group) for _, group in groupby(days, key=lambda day: (day.year, day.month))]
    if config.layout == "single":
        fields = [SampleUnit(f"{day}", "fields", day, 1, tuple(_step_files(config, day))) for day in days]
    else:
        fields = [_month_unit(config, month) for month in months]
    return fields + [_caption_unit(month) for month in months]


def step_hours(config: SampleSource) -> range:
    """Hours of the day that have a time step."""
    return range(0, 24, config.step_hours)


def step_file(variable: str, day: date, hour: int) -> str:
    """`step_file("u10", date(2024, 1, 1), 6)` => "nc_u10/ERA5_2024-01-01T06_00_00_u10.nc"."""
    return f"nc_{variable}/ERA5_{day}T{hour:02d}_00_00_{variable}.nc"


def month_files(config: SampleSource, month: str) -> tuple[str, ...]:
    """`month_files(config, "2024-01")` => the file of each product, single levels first."""
    products = ("single", "pressure") if config.levels else ("single",)
    return tuple(f"era5_{product}_levels_{month}.nc" for product in products)


def _step_files(config: SampleSource, day: date) -> Iterator[str]:
    names = SINGLE_LEVEL + (PRESSURE_LEVEL if config.levels else ())
    return (step_file(name, day, hour) for hour in step_hours(config) for name in names)


def _month_unit(config: SampleSource, days: tuple[date, ...]) -> SampleUnit:
    month = f"{days[0]:%Y-%m}"
    return SampleUnit(month, "fields", days[0], len(days), month_files(config, month))


def _caption_unit(days: tuple[date, ...]) -> SampleUnit:
    month = f"{days[0]:%Y-%m}"
    files = (f"captions_{month}.csv", f"captions_truth_{month}.csv")
    return SampleUnit(f"captions-{month}", "captions", days[0], len(days), files)
