"""How large a pixel of a raster is on the ground, and which way is north: what a projection does to lengths."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.fire_data import Decoding

SQUARE = 0.05
"""Relative difference of a pixel's sides that is still taken for a square, and of its sizes across a raster."""
SMALLEST, LARGEST = 1e-3, 1e6
"""Metres between which a pixel's side must be."""
TRUE = 0.01
"""Relative difference from the ground up to which a projection's own lengths are taken; UTM stays below 0.002."""
TURNED = 30.0
"""Degrees between up and north up to which winds, given from north, are taken as they are."""
TURNED_A_LITTLE = 5.0
"""Degrees from which on people are told."""
EARTH = 6_371_008.8
EQUATOR, FLATTENING = 6_378_137.0, 1 / 298.257223563
"""Of WGS 84, in metres."""


@dataclass(frozen=True, slots=True)
class Pixel:
    """The sides of a pixel in metres."""

    east: float
    north: float
    note: str = ""
    """What people should know about it."""


def pixel_size(path: Path, transform: Any, crs: Any, shape: tuple[int, int], decoding: Decoding) -> Pixel:
    """Return how large pixels are on the ground; refuse rasters where they are no squares that stand upright."""
    if transform.is_identity:
        if decoding.cell_metres is None:
            raise ValueError(f"{path} has no georeference; set decoding.cell_metres to the side of a pixel in metres")
        return Pixel(decoding.cell_metres, decoding.cell_metres)
    upright = transform.a > 0 > transform.e and transform.a * transform.e < 0  # not so small that it is 0
    if not (upright and transform.b == transform.d == 0):
        numbers = [float(v) for v in tuple(transform)[:6]]
        raise ValueError(f"{path} is not north-up (transform {numbers}); warp it first, e.g. with gdalwarp")
    size = _sensible(path, _nominal(path, transform, crs, shape, decoding))
    if decoding.cell_metres is None and crs is not None:
        size = _sensible(path, _on_the_ground(path, transform, crs, shape, size))
    if abs(size.east / size.north - 1) > SQUARE:
        raise ValueError(
            f"{path} has pixels of {size.east:.4g} by {size.north:.4g} metres; warp it to square ones in a metric "
            "projection first, e.g. with gdalwarp -t_srs"
        )
    return size


def _sensible(path: Path, size: Pixel) -> Pixel:
    if not all(SMALLEST < side < LARGEST for side in (size.east, size.north)):
        raise ValueError(f"{path} has pixels of {size.east:.4g} by {size.north:.4g} metres; correct its georeference")
    return size


def _nominal(path: Path, transform: Any, crs: Any, shape: tuple[int, int], decoding: Decoding) -> Pixel:
    """Return the size that a transform states, in metres."""
    width, height = float(transform.a), -float(transform.e)
    if decoding.cell_metres is not None:
        unit = decoding.cell_metres / math.sqrt(width * height)
        return Pixel(width * unit, height * unit)
    if crs is None or crs.is_projected:
        _require_metres(path, transform, crs, shape)
    if crs is None:
        return Pixel(width, height)
    if crs.is_geographic:
        unit = math.pi / 180 * EARTH
        return Pixel(width * unit * math.cos(math.radians(transform.f)), height * unit)
    if not crs.is_projected:
        raise ValueError(
            f"{path} has a coordinate system of its own, whose place on Earth is not known; set decoding.cell_metres "
            "to the side of a pixel in metres"
        )
    unit = crs.linear_units_factor[1]
    return Pixel(width * unit, height * unit)


def _require_metres(path: Path, transform: Any, crs: Any, shape: tuple[int, int]) -> None:
    """Refuse coordinates that are degrees by their size where no coordinate system says that they are."""
    right, bottom = transform.c + shape[1] * transform.a, transform.f + shape[0] * transform.e
    if max(abs(transform.c), abs(right)) <= 360 and max(abs(transform.f), abs(bottom)) <= 90:
        system = "a coordinate system in metres" if crs else "no coordinate system"
        raise ValueError(
            f"{path} has {system}, and coordinates that are degrees by their size ({transform.c:g} to {right:g}, "
            f"{bottom:g} to {transform.f:g}); warp it to a metric projection, e.g. with gdalwarp -s_srs EPSG:4326 "
            "-t_srs, or set decoding.cell_metres to the side of a pixel in metres"
        )


def _on_the_ground(path: Path, transform: Any, crs: Any, shape: tuple[int, int], nominal: Pixel) -> Pixel:
    """Return the nominal size where it is true, else that on the ground; refuse what differs within the raster."""
    from rasterio._err import CPLE_BaseError  # what `project` raises, and no RasterioError

    try:
        east, north, turned = _measured(transform, crs, shape)
    except CPLE_BaseError:  # another planet
        return nominal
    if not (np.isfinite(east).all() and np.isfinite(north).all()):  # no place on Earth that is known
        return nominal
    if abs(turned) > TURNED:
        raise ValueError(
            f"{path}: north is {abs(turned):.0f} degrees away from up in its projection, but winds are given from "
            "north; warp it to a projection of its own region first, e.g. UTM with gdalwarp -t_srs"
        )
    sides = np.concatenate([east / east[0], north / north[0]])
    if np.abs(sides - 1).max() > SQUARE:
        raise ValueError(
            f"{path}: pixels are {east.min():.4g} to {east.max():.4g} by {north.min():.4g} to {north.max():.4g} metres "
            "on the ground; warp it to a projection of its own region first, e.g. UTM with gdalwarp -t_srs"
        )
    notes = []
    if abs(turned) > TURNED_A_LITTLE:
        notes.append(f"north is {abs(turned):.0f} degrees away from up, so that winds are by as much beside the fires")
    size = nominal
    if max(abs(east[0] / nominal.east - 1), abs(north[0] / nominal.north - 1)) > TRUE:
        size = Pixel(float(east[0]), float(north[0]))
        notes.append(
            f"pixels are {size.east:.4g} by {size.north:.4g} metres on the ground, where the projection has "
            f"{nominal.east:.4g} by {nominal.north:.4g}; slopes and areas are those on the ground"
        )
    return Pixel(size.east, size.north, "; ".join(notes))


def _measured(
    transform: Any, crs: Any, shape: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return a pixel's sides on the ellipsoid at centre and corners, and how far north is from up at the centre.

    Sides are metres, infinite where a place is outside of the projection; the angle is in degrees.
    """
    from rasterio.warp import transform as project

    rows = np.array([0.5, 0.0, 0.0, 1.0, 1.0]) * shape[0]
    columns = np.array([0.5, 0.0, 1.0, 0.0, 1.0]) * shape[1]
    x, y = transform.c + transform.a * columns, transform.f + transform.e * rows
    across, up = 0.5 * transform.a, -0.5 * transform.e
    xs, ys = np.concatenate([x - across, x + across, x, x]), np.concatenate([y, y, y - up, y + up])
    longitude, latitude = (np.array(v).reshape(4, -1) for v in project(crs, "EPSG:4326", xs, ys))
    middle = np.radians(latitude.mean(axis=0))
    square = FLATTENING * (2 - FLATTENING)  # of the eccentricity
    bend = 1 - square * np.sin(middle) ** 2
    along_parallel = np.radians(1) * EQUATOR / np.sqrt(bend) * np.cos(middle)
    along_meridian = np.radians(1) * EQUATOR * (1 - square) / bend**1.5

    def ground(start: int, end: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        around = (longitude[end] - longitude[start] + 180) % 360 - 180
        return around * along_parallel, (latitude[end] - latitude[start]) * along_meridian

    east, north = ground(0, 1), ground(2, 3)
    turned = math.degrees(math.atan2(north[0][0], north[1][0]))
    return np.hypot(*east), np.hypot(*north), turned
