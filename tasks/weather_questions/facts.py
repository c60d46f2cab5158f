"""What a window's fields say, in numbers: the truth behind every answer, in °C, m/s, hPa and mm an hour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.weather import Accumulation, Recipe
from tasks.era5.cf_units import same_unit

QUARTERS = ("north west", "north east", "south west", "south east")
HALVES = ("north", "south", "west", "east")
FACTS = (*QUARTERS, *HALVES, "mean", "highest", "lowest", "first", "last")
"""Means over all steps of quarters, halves and the window, weighted by area; extremes over all steps and cells; means
of the centre, which is half as high and half as wide as the window, at the first and the last step."""
LEAST_VALID = 0.5
"""Share of a part's values that must be there; otherwise nothing is known of it."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Quantity:
    """Something that windows are asked about.

    Attributes:
        channels, unit: what it is made of in a store, and their unit there; of two channels the length of the vector.
        factor, offset: from that unit to the one that people are told.
        margin: differences below it are no answer, in the latter unit.
        nearest: what numbers are rounded to; None where none are asked for.
        accumulation: what one value of its channels must be declared to hold; None where they are not accumulated.
    """

    name: str
    channels: tuple[str, ...]
    unit: str
    margin: float
    factor: float = 1.0
    offset: float = 0.0
    nearest: int | None = None
    accumulation: Accumulation | None = None

    def values(self, fields: Mapping[str, NDArray[np.float32]]) -> Floats:
        """Return (T, H, W) of fields by channel; NaN where a value is missing."""
        parts = [fields[channel].astype(np.float64) for channel in self.channels]
        return (parts[0] if len(parts) == 1 else np.hypot(*parts)) * self.factor + self.offset


QUANTITIES = (
    Quantity("temperature", ("t2m",), "K", 0.5, offset=-273.15, nearest=5),
    Quantity("wind", ("u10", "v10"), "m s**-1", 0.5, nearest=2),
    Quantity("pressure", ("msl",), "Pa", 0.5, factor=0.01, nearest=5),
    Quantity("rain", ("tp",), "m", 0.02, factor=1000, accumulation="hourly"),
)


def quantities_of(attrs: Mapping[str, Any]) -> list[Quantity]:
    """Return what a store can be asked about, from the units and the recipe in its attributes.

    Raises:
        ValueError: nothing.
    """
    units, recipe = attrs["units"], Recipe.model_validate(attrs["recipe"])

    def has(channel: str, quantity: Quantity) -> bool:
        declared = quantity.accumulation in (None, recipe.accumulation_of(channel))
        return channel in units and same_unit(units[channel], quantity.unit) and declared

    found = [quantity for quantity in QUANTITIES if all(has(channel, quantity) for channel in quantity.channels)]
    if not found:
        known = "; ".join(map(_described, QUANTITIES))
        raise ValueError(
            f"questions are about {known}, and the store has none of these, only {', '.join(units)}; add one to "
            "recipe.variables, or leave questions out"
        )
    return found


def _described(quantity: Quantity) -> str:
    declared = f", declared {quantity.accumulation}" if quantity.accumulation else ""
    return f"{' and '.join(quantity.channels)} in {quantity.unit}{declared}"


def facts_of(values: Floats, latitude: NDArray[np.floating]) -> Floats:
    """Return (F,), in the order of `FACTS`, of values (T, H, W) on rows at these latitudes; NaN where not known."""
    _, rows, columns = values.shape
    north, south = latitude > latitude.mean(), latitude < latitude.mean()
    place = np.arange(columns) - (columns - 1) / 2
    west, east = place < 0, place > 0
    everywhere = np.ones(rows, bool), np.ones(columns, bool)
    weight = np.broadcast_to(np.cos(np.radians(latitude.astype(np.float64)))[:, None], (rows, columns))

    def mean(row: NDArray[np.bool_], column: NDArray[np.bool_], steps: slice = slice(None)) -> float:
        part = values[steps][:, row][:, :, column]
        return _mean(part, np.broadcast_to(weight[row][:, column], part.shape))

    quarters = [mean(row, column) for row in (north, south) for column in (west, east)]
    halves = [mean(north, everywhere[1]), mean(south, everywhere[1]), mean(everywhere[0], west),
              mean(everywhere[0], east)]  # fmt: skip
    known = np.isfinite(values).mean() >= LEAST_VALID
    extremes = [np.nanmax(values), np.nanmin(values)] if known else [np.nan, np.nan]
    centre = _centre(rows), _centre(columns)
    ends = [mean(*centre, slice(0, 1)), mean(*centre, slice(-1, None))]
    return np.array([*quarters, *halves, mean(*everywhere), *extremes, *ends])


def named(facts: Floats) -> dict[str, float]:
    """Return facts (F,) by name."""
    return dict(zip(FACTS, facts.tolist(), strict=True))


def columns_of(names: Sequence[str]) -> list[int]:
    """Return where facts of these names stand."""
    return [FACTS.index(name) for name in names]


def _centre(size: int) -> NDArray[np.bool_]:
    """Return which of a window's rows or columns lie in its middle half."""
    return np.abs(np.arange(size) - (size - 1) / 2) <= size / 4


def _mean(values: Floats, weight: Floats) -> float:
    there = np.isfinite(values)
    if not there.size or there.mean() < LEAST_VALID:
        return float("nan")
    return float((np.where(there, values, 0.0) * weight).sum() / (weight * there).sum())
