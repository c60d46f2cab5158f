"""Hourly wind for sample fires: one record of a year, of which every fire sees a few consecutive hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

START = datetime(2021, 1, 1)
HOURS = 8760
SYNOPTIC_HOURS = 28.0
"""How long the wind of a weather system remembers itself."""


@dataclass(frozen=True, slots=True)
class Wind:
    """An hourly record, as a weather station writes it."""

    speed: NDArray[np.int64]
    """Kilometres per hour, 10 m above ground."""
    direction: NDArray[np.int64]
    """Where the wind comes FROM, degrees clockwise from north, 0 to 359."""

    def csv(self, first: int, rows: int, scenario: str) -> str:
        """Return consecutive hours in the raw format."""
        lines = ["Scenario,datetime,WS,WD,FireScenario"]
        for hour in range(first, first + rows):
            when = START + timedelta(hours=hour)
            lines.append(f"{scenario},{when:%Y-%m-%d %H:%M},{self.speed[hour]},{self.direction[hour]}.0,2.0")
        return "\n".join(lines) + "\n"

    def window(self, first: int, rows: int) -> NDArray[np.float64]:
        """Return (rows, 2): speed and direction."""
        hours = slice(first, first + rows)
        return np.stack([self.speed[hours], self.direction[hours]], axis=1).astype(np.float64)


@lru_cache(maxsize=1)
def make_wind(seed: int) -> Wind:
    """Return a year of wind: passing weather systems, a breeze that turns between day and night, and gustiness."""
    rng = np.random.default_rng((seed, 1))
    bearing = rng.uniform(0, 2 * np.pi, size=2)
    clock = 2 * np.pi * (np.arange(HOURS) % 24 - 14) / 24
    breeze = 6.0 * np.cos(clock) + 2.5
    east, north = (
        12.0 * trigonometric(bearing[0])
        + breeze * trigonometric(bearing[1])
        + 9.0 * _remembering(rng, SYNOPTIC_HOURS)
        + 2.5 * _remembering(rng, 2.0)
        for trigonometric in (np.sin, np.cos)
    )  # the vector along which the air moves
    speed = np.clip(np.rint(np.hypot(east, north)), 1, 45).astype(np.int64)
    direction = np.rint(np.degrees(np.arctan2(-east, -north))).astype(np.int64) % 360
    return Wind(speed, direction)


def _remembering(rng: np.random.Generator, hours: float) -> NDArray[np.float64]:
    """A first-order autoregressive series of variance 1 that forgets within so many hours."""
    keep = np.exp(-1 / hours)
    shocks = rng.standard_normal(HOURS) * np.sqrt(1 - keep**2)
    values = np.empty(HOURS)
    last = rng.standard_normal()
    for hour, shock in enumerate(shocks):
        last = keep * last + shock
        values[hour] = last
    return values


def weather_files(windows: Sequence[tuple[int, int]]) -> tuple[dict[tuple[int, int], str], list[str]]:
    """Name a file for every different (first hour, rows), in order of appearance, and return each window's file."""
    names: dict[tuple[int, int], str] = {}
    for window in windows:
        names.setdefault(window, f"Weather{len(names) + 1}.csv")
    return names, [names[window] for window in windows]
