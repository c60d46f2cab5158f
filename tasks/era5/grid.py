"""The canonical latitude-longitude grid, and how a file's rows and columns become it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tasks.era5.netcdf import UnusableError

TOLERANCE = 1e-4
"""Coordinates closer than this, in degrees, are equal; float32 coordinates are wrong by up to 3e-5."""


class Axis(BaseModel):
    """The coordinates of one axis in degrees: `first` to `last` evenly, unless `values` lists them."""

    model_config = ConfigDict(frozen=True)

    first: float
    last: float
    count: int
    values: tuple[float, ...] | None = None

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Axis:
        """Describe coordinates as compactly as the tolerance allows."""
        first, last, count = _decimal(values[0]), _decimal(values[-1]), len(values)
        if np.abs(np.linspace(first, last, count) - values).max() < TOLERANCE:
            return cls(first=first, last=last, count=count)
        return cls(first=first, last=last, count=count, values=tuple(map(_decimal, values)))

    def coordinates(self) -> NDArray[np.float64]:
        """Return every coordinate."""
        if self.values is not None:
            return np.array(self.values)
        return np.round(np.linspace(self.first, self.last, self.count), 6)

    def matches(self, other: Axis) -> bool:
        """Say whether both axes have the same coordinates, within the tolerance."""
        if self.count != other.count:
            return False
        return bool(np.abs(self.coordinates() - other.coordinates()).max() <= TOLERANCE)


def _decimal(value: float) -> float:
    """Return the shortest decimal that differs by float32 noise alone: `359.899994 => 359.9`."""
    return next((r for d in range(5) if abs((r := round(float(value), d)) - value) <= 2e-5), round(float(value), 5))


class Grid(BaseModel):
    """Latitude descending, longitude ascending without a jump.

    A global grid starts at its first longitude from 0. A regional one starts after its largest gap, within
    [0, 360), or below 0 where it would reach 360: -10..4 stays -10..4 and -17..-1 becomes 343..359.
    """

    model_config = ConfigDict(frozen=True)

    latitude: Axis
    longitude: Axis

    def matches(self, other: Grid) -> bool:
        """Say whether both grids have the same cells, within the tolerance."""
        return self.latitude.matches(other.latitude) and self.longitude.matches(other.longitude)

    def __str__(self) -> str:
        latitude, longitude = self.latitude, self.longitude
        return (
            f"{latitude.count} x {longitude.count} cells, latitude {latitude.first:g}..{latitude.last:g}, "
            f"longitude {longitude.first:g}..{longitude.last:g}"
        )


class Orientation(BaseModel):
    """How a stored plane lies: flip its rows or columns, then begin at column `roll`, and it is canonical."""

    model_config = ConfigDict(frozen=True)

    flip_latitude: bool = False
    flip_longitude: bool = False
    roll: int = 0

    @property
    def canonical(self) -> bool:
        """True where a stored plane needs no change."""
        return not (self.flip_latitude or self.flip_longitude or self.roll)

    def place(self, stored: NDArray, canonical: NDArray) -> None:
        """Copy planes (..., rows, columns) as stored into `canonical`, which has the same shape."""
        rows = stored[..., ::-1, :] if self.flip_latitude else stored
        rows = rows[..., ::-1] if self.flip_longitude else rows
        split = rows.shape[-1] - self.roll
        canonical[..., :split] = rows[..., self.roll :]
        canonical[..., split:] = rows[..., : self.roll]


def canonical_grid(latitude: NDArray, longitude: NDArray) -> tuple[Grid, Orientation]:
    """Return the canonical grid of stored coordinates (1-d, degrees) and how to get there."""
    rows, flip_latitude = _descending(latitude.astype(np.float64))
    columns, flip_longitude, roll = _contiguous(longitude.astype(np.float64))
    return (
        Grid(latitude=Axis.of(rows), longitude=Axis.of(columns)),
        Orientation(flip_latitude=flip_latitude, flip_longitude=flip_longitude, roll=roll),
    )


def _descending(latitude: NDArray[np.float64]) -> tuple[NDArray[np.float64], bool]:
    if not (np.abs(latitude) <= 90 + TOLERANCE).all():
        raise UnusableError("has latitudes that are missing or beyond the poles; repair its coordinates")
    steps = np.diff(latitude)
    if (steps < 0).all():
        return latitude, False
    if (steps > 0).all():
        return latitude[::-1], True
    raise UnusableError("has latitudes in no order; sort it by latitude")


def _contiguous(longitude: NDArray[np.float64]) -> tuple[NDArray[np.float64], bool, int]:
    """Return the longitudes in canonical order, whether they were flipped, and the column that comes first."""
    if not np.isfinite(longitude).all():
        raise UnusableError("has missing longitudes; repair its coordinates")
    degrees = np.round(longitude, 5) % 360
    flip = _cyclic_descents(degrees) > 1
    degrees = degrees[::-1] if flip else degrees
    if _cyclic_descents(degrees) > 1:
        raise UnusableError("has longitudes in no order; sort it by longitude")
    lowest = int(degrees.argmin())
    ascending = np.roll(degrees, -lowest)
    gaps = np.diff(ascending, append=ascending[0] + 360)
    if gaps.min() < TOLERANCE:
        raise UnusableError("holds a meridian twice (e.g. both -180 and 180); drop one of the two columns")
    first = 0 if gaps.max() <= 1.5 * gaps.min() else (int(gaps.argmax()) + 1) % len(gaps)
    contiguous = np.concatenate([ascending[first:], ascending[:first] + 360])
    if contiguous[-1] >= 360:
        contiguous -= 360
    return contiguous, flip, (lowest + first) % len(degrees)


def _cyclic_descents(degrees: NDArray[np.float64]) -> int:
    return int((np.roll(degrees, -1) < degrees).sum())
