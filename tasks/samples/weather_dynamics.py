"""The large-scale dynamics of the sample weather: air masses, pressure, geopotential and winds.

Temperature comes from where the air came from, the geopotential from pressure and temperature (hydrostatic), the winds
from the geopotential (geostrophic, curved, slowed by friction): so fronts, jets and troughs that lean with height fit
together at every level.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tasks.samples.weather_earth import EARTH_RADIUS_M, HALO, Grid, summer
from tasks.samples.weather_noise import Floats, Waves, random_waves
from tasks.samples.weather_systems import active_systems, superpose

Field = Floats
"""float32 (hour, latitude, longitude), or something that broadcasts to it."""

GAS_CONSTANT = 287.05  # J/(kg K)
GRAVITY = 9.80665
STANDARD_K = 288.15
"""Temperature of the standard atmosphere at sea level."""
FRICTION_SEA, FRICTION_LAND = 3.5e-5, 7.5e-5  # 1/s


@lru_cache(maxsize=4)
def noises(seed: int) -> dict[str, Waves]:
    """The random parts of the weather; drift in degrees of longitude per hour."""
    return {
        "ridges": random_waves((seed, 11), count=14, zonal=(3, 8), drift=0.15, period_hours=200),
        "air": random_waves((seed, 12), count=24, zonal=(4, 16), drift=0.35, period_hours=120),
        "pressure": random_waves((seed, 13), count=24, zonal=(4, 14), drift=0.3, period_hours=90),
        "moisture": random_waves((seed, 14), count=32, zonal=(8, 32), drift=0.45, period_hours=60),
        "texture": random_waves((seed, 15), count=48, zonal=(25, 110), drift=0.5, period_hours=12),
        "cells": random_waves((seed, 16), count=64, zonal=(40, 150), drift=0.4, period_hours=9),
        "sea": random_waves((seed, 17), count=24, zonal=(5, 30), drift=0.0, period_hours=2000),
    }


def inner(field: Field) -> Field:
    """A field without its halo."""
    return field[..., HALO:-HALO, HALO:-HALO]


def zonal_temperature(latitude: Field, warmth: Field, width: float) -> Field:
    """Sea level temperature (K) at a latitude: a smooth decrease towards the pole and a step at the polar front.

    `warmth` is +1 in local summer; `width` of the front in degrees.
    """
    sine2 = np.square(np.sin(np.radians(latitude)))
    step = 3.4 * (1 + np.tanh(_beyond_front(latitude, warmth) / np.float32(width)))
    return 303.8 - 26.5 * sine2 - 4 * np.square(np.square(sine2)) - step + 6.3 * warmth * np.sqrt(sine2)


def _beyond_front(latitude: Field, warmth: Field) -> Field:
    """Degrees on the polar side of the mean polar front."""
    return np.abs(latitude) - (48 + 5 * warmth)


@dataclass(frozen=True, slots=True)
class Air:
    """Air masses on the halo grid; temperatures are departures from the standard atmosphere, K."""

    msl: Field
    """Mean sea level pressure, hPa."""
    front: Field
    """Shallow part: the sharp contrast across fronts."""
    deep: Field
    """Part that reaches through the troposphere."""
    core: Field
    """Warm cores of tropical cyclones, strongest aloft."""
    origin: Field
    """Latitude where the air came from."""
    warmth: Field
    """+1 in local summer, -1 in local winter, as (hour, latitude, 1)."""


def air_masses(seed: int, grid: Grid, hours: Floats) -> Air:
    """Pressure and air masses at `hours` since 1970-01-01T00 UTC."""
    random = noises(seed)
    lat, lon = grid.latitude_halo, grid.longitude_halo
    systems = superpose(active_systems(seed, hours[0], hours[-1]), lat, lon, hours)
    column = lat.astype(np.float32)[:, None]
    season = summer(hours).astype(np.float32)[:, None, None]
    warmth = season * np.tanh(column / 8)
    meander = 4.5 * np.exp(-np.square((np.abs(column) - 48) / 20)) * random["ridges"].field(lat, lon, hours)
    shift = 15 * np.tanh((systems.origin - meander * np.sign(column)) / 15)
    origin = column + shift
    inland = (grid.inland - 0.35) * warmth * np.abs(np.sin(np.radians(column)))
    smooth = zonal_temperature(column + 0.8 * shift, warmth, 9.0)
    sharp = zonal_temperature(origin, warmth, 2.0)
    calm_tropics = 1 - 0.75 * np.exp(-np.square(column / 24))
    air = 1.2 * calm_tropics * random["air"].field(lat, lon, hours)
    deep = smooth + air + systems.warm + 6 * inland - np.float32(STANDARD_K)
    sine2 = np.square(np.sin(np.radians(column)))
    belts = 7 * np.exp(-np.square((np.abs(column) - 31 - 3 * warmth) / 11))
    belts = belts - 8 * np.exp(-np.square((np.abs(column) - 62) / 11)) + 2 * sine2
    belts = belts - 3 * np.exp(-np.square((column - 6 * season) / 9))
    waves = 1.6 * calm_tropics * random["pressure"].field(lat, lon, hours)
    front_line = 1 - np.square(np.tanh(_beyond_front(origin, warmth) / 2))
    deficit2 = np.square(np.maximum(-systems.pressure, 0))
    trough = 2.4 * front_line * deficit2 / (deficit2 + 60)
    msl = 1012.0 + belts - 5 * inland + systems.pressure + waves - trough
    return Air(msl, sharp - smooth, deep, systems.core, origin, warmth)


@dataclass(frozen=True, slots=True)
class Slope:
    """First derivatives (per m, east and north) and Laplacian (per m2) of a field on the inner grid."""

    east: Field
    north: Field
    bend: Field


@dataclass(frozen=True, slots=True)
class Flow:
    """Slopes of the parts that make up the geopotential, and the balance of the air near the ground."""

    base: Slope
    """Of the geopotential of the 1000 hPa surface, m2/s2."""
    front: Slope
    deep: Slope
    core: Slope
    coriolis: Field
    vorticity: Field
    """Of the surface flow, per s, positive for cyclones in both hemispheres."""
    advection: Field
    """Temperature change by the frictionless surface wind, K per hour."""
    contrast: Field
    """Horizontal temperature gradient, K per 100 km."""


def slope_of(field: Field, grid: Grid) -> Slope:
    """Central differences of a field with halo."""
    dy = np.float32(np.radians(grid.step) * EARTH_RADIUS_M)
    dx = dy * np.cos(np.radians(grid.latitude)).clip(0.08).astype(np.float32)[:, None]
    middle = inner(field)
    west, east = field[:, HALO:-HALO, HALO - 1 : -HALO - 1], field[:, HALO:-HALO, HALO + 1 : 1 - HALO]
    north, south = field[:, HALO - 1 : -HALO - 1, HALO:-HALO], field[:, HALO + 1 : 1 - HALO, HALO:-HALO]
    bend = (west + east - 2 * middle) / (dx * dx) + (north + south - 2 * middle) / (dy * dy)
    return Slope((east - west) / (2 * dx), (north - south) / (2 * dy), bend)


def _combined(parts: list[tuple[float, Slope]]) -> Slope:
    """The slope of a weighted sum of fields."""
    weighted = [(np.float32(weight), slope) for weight, slope in parts]
    east, north, bend = (
        np.add.reduce([weight * getattr(slope, name) for weight, slope in weighted]) for name in Slope.__slots__
    )
    return Slope(east, north, bend)


def balanced_wind(slope: Slope, f: Field, friction: Field | float, top: float) -> tuple[Field, Field]:
    """Wind (m/s) that balances a slope of the geopotential, Coriolis force, curvature and linear friction.

    Friction turns it towards low pressure. Speeds approach but never pass `top`.
    """
    tropics = np.float32(2.5e-5) * np.exp(-np.square(f / 2.5e-5))
    total = f * f + np.square(friction + tropics)
    curved = 2 / (1 + np.sqrt(1 + 2 * np.clip(slope.bend / total, -0.35, 60)))
    factor = curved / total
    u = -factor * (f * slope.north + friction * slope.east)
    v = factor * (f * slope.east - friction * slope.north)
    slowed = (1 + np.square((u * u + v * v) / np.float32(top * top))) ** np.float32(-0.25)
    return u * slowed, v * slowed


def flow_of(grid: Grid, air: Air) -> Flow:
    """Everything about the winds that does not depend on the level."""
    thickness = np.float32(GAS_CONSTANT * 285)
    base = slope_of(thickness * np.log(air.msl / 1000), grid)
    front, deep, core = (slope_of(part, grid) for part in (air.front, air.deep, air.core))
    latitude = np.radians(grid.latitude).astype(np.float32)[:, None]
    f = np.float32(2 * 7.292e-5) * np.sin(latitude)
    u, v = balanced_wind(base, f, 0.0, top=80)
    warm = _combined([(1, front), (1, deep)])
    strong_f = np.maximum(np.abs(f), np.float32(4e-5))
    return Flow(
        base=base,
        front=front,
        deep=deep,
        core=core,
        coriolis=f,
        vorticity=base.bend / strong_f,
        advection=-3600 * (u * warm.east + v * warm.north),
        contrast=1e5 * np.hypot(warm.east, warm.north),
    )


@lru_cache(maxsize=64)
def _profile(level: int) -> tuple[float, float, tuple[float, float, float], tuple[float, float, float]]:
    """Vertical structure at a pressure level.

    Temperature of the standard atmosphere, its geopotential above 1000 hPa, the weights of the front, deep and core
    temperatures at the level, and the geopotential (m2/s2) that one kelvin of each adds below it.
    """
    top = np.log(1000 / level)
    s = np.linspace(min(top, 0.0), max(top, 0.0), 400)
    standard = np.maximum(STANDARD_K * np.exp(-s * GAS_CONSTANT * 0.0065 / GRAVITY), 216.65)
    weights = (
        np.exp(-np.square(s / 0.35)),
        np.cos(np.clip(s * np.pi / 2 / 1.45, -np.pi, np.pi)) * np.exp(-((np.maximum(s, 0) / 2.6) ** 4)),
        np.sin(np.clip(s * np.pi / 2.2, 0, np.pi)),
    )
    sign = 1 if top >= 0 else -1
    at = -1 if top >= 0 else 0
    integral = [sign * GAS_CONSTANT * float(np.trapezoid(w, s)) for w in (standard, *weights)]
    here = [float(w[at]) for w in weights]
    return float(standard[at]), integral[0], (here[0], here[1], here[2]), (integral[1], integral[2], integral[3])


def level_fields(level: int, grid: Grid, air: Air, flow: Flow) -> dict[str, Field]:
    """`t`, `u`, `v` and `z` at one pressure level (hPa)."""
    standard, below, here, lifted = _profile(level)
    parts = [inner(part) for part in (air.front, air.deep, air.core)]
    here_parts = np.add.reduce([np.float32(w) * part for w, part in zip(here, parts, strict=True)])
    below_parts = np.add.reduce([np.float32(w) * part for w, part in zip(lifted, parts, strict=True)])
    height = np.float32(GAS_CONSTANT * 285) * np.log(inner(air.msl) / 1000) + below + below_parts
    slope = _combined([(1, flow.base), *zip(lifted, (flow.front, flow.deep, flow.core), strict=True)])
    s = np.log(1000 / level)
    ground_drag = FRICTION_SEA + (FRICTION_LAND - FRICTION_SEA) * grid.land
    u, v = balanced_wind(slope, flow.coriolis, ground_drag * np.float32(np.exp(-(max(s, 0) / 0.1))), top=95)
    return {"t": standard + here_parts, "u": u, "v": v, "z": height}
