"""The fixed ground below the sample weather: the grid, land and sea, mountains, seasons and the sun."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from configs.weather import SampleSource
from tasks.samples.weather_noise import Floats, random_waves
from tasks.samples.weather_outlines import INLAND_SEAS, LAND, RIDGES, Outline

EARTH_RADIUS_M = 6.371e6
HALO = 2
"""Extra rows and columns around the grid, so that derivatives need no special case at its edges."""
YEAR_HOURS = 365.2425 * 24


@dataclass(frozen=True, slots=True)
class Grid:
    """The points of a sample: the area itself and the area with its halo (suffix `_halo`)."""

    step: float
    """Spacing in degrees."""
    latitude: Floats
    """Descending, degrees north."""
    longitude: Floats
    """Ascending, degrees east, as the area was asked for (may be negative)."""
    latitude_halo: Floats
    longitude_halo: Floats
    land: Floats
    """Land fraction 0..1 on (latitude, longitude)."""
    height: Floats
    """Height of the terrain in m, with halo; it goes on smoothly below the sea."""
    inland: Floats
    """Continentality 0..1 with halo: the land fraction of the wide surroundings."""


def sample_grid(config: SampleSource) -> Grid:
    """The grid of a configuration and the ground below it; a full circle of longitudes is not closed twice."""
    return _grid(config.north, config.south, config.west, config.east, config.resolution)


@lru_cache(maxsize=4)
def _grid(north: float, south: float, west: float, east: float, step: float) -> Grid:
    latitude = (north - step * np.arange(int((north - south) / step + 1e-6) + 1)).round(6)
    columns = min(int((east - west) / step + 1e-6) + 1, max(int(360 / step + 1e-6), 1))
    longitude = (west + step * np.arange(columns)).round(6)
    around = step * np.arange(1, HALO + 1)
    latitude_halo = np.concatenate([north + around[::-1], latitude, latitude[-1] - around]).clip(-90, 90)
    longitude_halo = np.concatenate([west - around[::-1], longitude, longitude[-1] + around])
    land_halo = _land_fraction(latitude_halo, longitude_halo, step)
    core = slice(HALO, -HALO)
    return Grid(
        step,
        latitude,
        longitude,
        latitude_halo,
        longitude_halo,
        land_halo[core, core],
        _terrain(latitude_halo[:, None], longitude_halo[None, :]),
        _continentality(latitude_halo, longitude_halo),
    )


def is_land(latitude: Floats, longitude: Floats) -> NDArray[np.bool_]:
    """Whether points lie on land; the coasts of the outlines are roughened by up to about half a degree."""
    latitude, longitude = np.broadcast_arrays(latitude, longitude)
    north_south = random_waves((1, 1), count=12, zonal=(25, 110))
    east_west = random_waves((1, 2), count=12, zonal=(25, 110))
    y = latitude + 0.3 * north_south.at(latitude, longitude)
    x = (longitude + 0.3 * east_west.at(latitude, longitude) + 180) % 360 - 180
    land = np.zeros(y.shape, dtype=bool)
    for outline in LAND.values():
        land |= _inside(outline, y, x)
    for outline in INLAND_SEAS.values():
        land &= ~_inside(outline, y, x)
    return land


def _inside(outline: Outline, y: Floats, x: Floats) -> NDArray[np.bool_]:
    """Even-odd rule; an outline that runs past 180 degrees east also claims the other side of the date line."""
    inside = np.zeros(y.shape, dtype=bool)
    longitudes, latitudes = zip(*outline, strict=True)
    near = (y >= min(latitudes)) & (y <= max(latitudes))
    shifts = (0, 360) if max(longitudes) > 180 else (0,)
    for shift in shifts:
        rows = near & (x + shift >= min(longitudes)) & (x + shift <= max(longitudes))
        py, px = y[rows], x[rows] + shift
        odd = np.zeros(py.shape, dtype=bool)
        for (x0, y0), (x1, y1) in zip(outline, outline[1:] + outline[:1], strict=True):
            if y0 != y1:
                odd ^= ((y0 > py) != (y1 > py)) & (px < (x1 - x0) * (py - y0) / (y1 - y0) + x0)
        inside[rows] |= odd
    return inside


def _land_fraction(latitude: Floats, longitude: Floats, step: float) -> Floats:
    """Share of land in each cell from 3 x 3 points."""
    total = np.zeros((len(latitude), len(longitude)), dtype=np.float32)
    for north in (-step / 3, 0, step / 3):
        for east in (-step / 3, 0, step / 3):
            total += is_land(latitude[:, None] + north, longitude[None, :] + east)
    return total / 9


def _terrain(latitude: Floats, longitude: Floats) -> Floats:
    """Height in m of smooth ridges over rolling country of 50 to 350 m."""
    hills = random_waves((1, 3), count=16, zonal=(12, 60))
    rough = np.clip(hills.at(latitude, longitude), -2, 2)
    height = 200 + 70 * rough
    for lon0, lat0, lon1, lat1, top, width_km in RIDGES:
        width = width_km * 1000 / EARTH_RADIUS_M * 180 / np.pi
        squeeze = np.cos(np.radians((lat0 + lat1) / 2))
        dx = ((longitude - lon0 + 180) % 360 - 180) * squeeze
        dy = latitude - lat0
        ex, ey = (lon1 - lon0) * squeeze, lat1 - lat0
        along = ((dx * ex + dy * ey) / (ex * ex + ey * ey)).clip(0, 1)
        distance2 = (dx - along * ex) ** 2 + (dy - along * ey) ** 2
        height = np.maximum(height, top * (1 + 0.15 * rough) * np.exp(-distance2 / width**2))
    return height.astype(np.float32)


@lru_cache(maxsize=1)
def _coarse_land() -> Floats:
    """Land of the globe on cells of 2.5 degrees, smoothed over about 1000 km; row 0 at 90 degrees south."""
    land = is_land(np.linspace(-90, 90, 73)[:, None], np.arange(0, 360, 2.5)[None, :]).astype(float)
    for _ in range(3):
        land = np.mean([np.roll(land, shift, axis=1) for shift in range(-2, 3)], axis=0)
        padded = np.pad(land, ((2, 2), (0, 0)), mode="edge")
        land = np.mean([padded[shift : shift + 73] for shift in range(5)], axis=0)
    return land


def _continentality(latitude: Floats, longitude: Floats) -> Floats:
    """Cubic B-splines through the smoothed land of the globe: smooth enough to be differentiated twice."""
    coarse = _coarse_land()
    rows, across = _spline((latitude + 90) / 2.5), _spline((longitude % 360) / 2.5)
    bands = sum((weight[:, None] * coarse[index.clip(0, 72)] for index, weight in rows), np.zeros(()))
    total = sum((weight * bands[:, index % 144] for index, weight in across), np.zeros(()))
    return total.astype(np.float32)


def _spline(position: Floats) -> list[tuple[NDArray[np.intp], Floats]]:
    """The four neighbours of each position on a grid of unit spacing and their weights."""
    index = np.floor(position).astype(np.intp)
    f = position - index
    weights = ((1 - f) ** 3, 4 - 6 * f**2 + 3 * f**3, 1 + 3 * f + 3 * f**2 - 3 * f**3, f**3)
    return [(index + shift, weight / 6) for shift, weight in zip(range(-1, 3), weights, strict=True)]


def summer(hours: Floats, lag_days: float = 30.0) -> Floats:
    """+1 in the northern summer, -1 in the northern winter; peaks `lag_days` after the solstice.

    `hours` count from 1970-01-01T00 UTC.
    """
    return np.cos(2 * np.pi * (np.asarray(hours) - (171 + lag_days) * 24) / YEAR_HOURS)


def sun_height(latitude: Floats, longitude: Floats, hours: Floats) -> Floats:
    """Sine of the sun's elevation as (hour, latitude, longitude), negative at night."""
    hours = np.asarray(hours, dtype=np.float64)
    declination = np.radians(23.44) * summer(hours, lag_days=0)
    angle = np.radians(longitude)[None, :] + (2 * np.pi / 24 * (hours % 24) - np.pi)[:, None]
    phi = np.radians(latitude)
    steady = np.sin(declination)[:, None] * np.sin(phi)
    swing = np.cos(declination)[:, None] * np.cos(phi)
    return (steady[:, :, None] + swing[:, :, None] * np.cos(angle)[:, None, :]).astype(np.float32)


def sea_temperature(latitude: Floats, hours: Floats) -> Floats:
    """Climatological temperature of the sea surface in K, never below freezing (271.35 K)."""
    sine = np.sin(np.radians(latitude))
    swing = 5.5 * np.abs(sine) ** 1.3 * np.sign(sine) * summer(hours, lag_days=65)
    return np.maximum(301.0 - 26 * sine**2 - 5 * sine**8 + swing, 271.35)
