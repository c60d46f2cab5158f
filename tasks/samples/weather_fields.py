"""The physics of the sample weather: every ERA5 variable on any grid as a pure function of (config, time).

The chain, each step from the ones before it: pressure systems -> where the air came from -> temperature of
air masses with fronts -> geopotential (hydrostatic) -> winds (geostrophic, curved, slowed by friction) ->
humidity -> lifting -> cloud and rain -> radiation and the daily cycle. Nothing is carried from step to step, so
any day can be computed on its own, in any order and process, with the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from configs.weather import SampleSource
from tasks.samples.weather_dynamics import (
    FRICTION_LAND,
    FRICTION_SEA,
    GAS_CONSTANT,
    GRAVITY,
    STANDARD_K,
    Air,
    Field,
    Flow,
    air_masses,
    balanced_wind,
    flow_of,
    inner,
    level_fields,
    noises,
    slope_of,
)
from tasks.samples.weather_earth import HALO, Grid, sample_grid, sea_temperature, summer, sun_height
from tasks.samples.weather_noise import Floats

SINGLE_LEVEL = ("u10", "v10", "t2m", "d2m", "msl", "sp", "sst", "tp", "cp", "ssrd")
PRESSURE_LEVEL = ("t", "r", "u", "v", "z")

PRECISION = {
    "u10": 2**-10,
    "v10": 2**-10,
    "t2m": 2**-9,
    "d2m": 2**-9,
    "msl": 2**-3,
    "sp": 2**-3,
    "sst": 2**-9,
    "tp": 2**-20,
    "cp": 2**-20,
    "ssrd": 2**6,
    "t": 2**-9,
    "r": 2**-9,
    "u": 2**-10,
    "v": 2**-10,
    "z": 2**-2,
}
"""Values are multiples of these, as values from 16-bit GRIB fields are."""

_POINTS_PER_BATCH = 400_000


@dataclass(frozen=True, slots=True)
class Batch:
    """All variables at a few consecutive steps of one day."""

    times: NDArray[np.datetime64]
    """UTC, resolution seconds."""
    single: dict[str, Field]
    """`SINGLE_LEVEL` variables as (time, latitude, longitude)."""
    pressure: dict[str, Field]
    """`PRESSURE_LEVEL` variables as (time, level, latitude, longitude); empty without levels."""


def sample_levels(config: SampleSource) -> tuple[int, ...]:
    """Pressure levels in hPa, from the ground upwards, as the Climate Data Store orders them."""
    return tuple(sorted(config.levels, reverse=True))


def day_batches(config: SampleSource, day: date, *, pressure: bool = True) -> Iterator[Batch]:
    """The fields of one UTC day, in batches small enough to keep memory flat on any grid."""
    grid = sample_grid(config)
    steps = np.arange(0, 24, config.step_hours).astype("timedelta64[h]")
    times = (np.datetime64(day) + steps).astype("datetime64[s]")
    size = max(1, _POINTS_PER_BATCH // (len(grid.latitude) * len(grid.longitude)))
    for start in range(0, len(times), size):
        chosen = times[start : start + size]
        single, levels = _fields(config, grid, chosen, sample_levels(config) if pressure else ())
        yield Batch(chosen, single, levels)


def _fields(
    config: SampleSource, grid: Grid, times: NDArray[np.datetime64], levels: tuple[int, ...]
) -> tuple[dict[str, Field], dict[str, Field]]:
    hours = times.astype(np.int64) / 3600
    air = air_masses(config.seed, grid, hours)
    flow = flow_of(grid, air)
    surface = _surface(config.seed, grid, hours, air, flow)
    single = {name: _quantised(name, surface.variables[name]) for name in SINGLE_LEVEL}
    if not levels:
        return single, {}
    upper = [level_fields(level, grid, air, flow) | {"r": _relative_humidity(level, surface)} for level in levels]
    return single, {
        name: _quantised(name, np.stack([fields[name] for fields in upper], axis=1)) for name in PRESSURE_LEVEL
    }


def _quantised(name: str, values: Field) -> Field:
    step = np.float32(PRECISION[name])
    return np.rint(values / step) * step


def _vapour_pressure(kelvin: Field) -> Field:
    """Saturation over water in hPa (Magnus)."""
    celsius = kelvin - np.float32(273.15)
    return 6.112 * np.exp(17.62 * celsius / (243.12 + celsius))


def _dew_point(vapour: Field) -> Field:
    """Dew point in K of a vapour pressure in hPa (Magnus, inverted)."""
    ratio = np.log(np.maximum(vapour, np.float32(0.02)) / 6.112)
    return 243.12 * ratio / (17.62 - ratio) + np.float32(273.15)


@dataclass(frozen=True, slots=True)
class _Surface:
    """The single-level variables, and what the levels above need to know."""

    variables: dict[str, Field]
    lift: Field
    """About 1 in an active front."""
    sinking: Field
    """0..1, under highs and behind cold fronts."""
    humidity: Field
    """Relative humidity near the ground before the daily cycle, 0..1."""


def _surface(seed: int, grid: Grid, hours: Floats, air: Air, flow: Flow) -> _Surface:
    random = noises(seed)
    lat, lon = grid.latitude, grid.longitude
    land, height = grid.land, grid.land * inner(grid.height)
    sea_noise = 0.9 * random["sea"].field(lat, lon, hours)
    sea = sea_temperature(lat[:, None], hours[:, None, None]).astype(np.float32)
    warmth = air.warmth[:, HALO:-HALO]
    sea = np.maximum(sea + sea_noise + 5 * inner(grid.inland) * warmth, np.float32(271.35))
    free = np.float32(STANDARD_K) + inner(air.front) + inner(air.deep)
    calm_air = free + (1 - land) * 0.45 * (sea - free) + land * 2.5 * inner(grid.inland) * warmth
    lift, sinking = _vertical_motion(grid, air, flow)
    moist = _moisture(grid, hours, air, free, sea, random["moisture"].field(lat, lon, hours))
    humidity = np.clip(moist / _vapour_pressure(calm_air) + 0.10 * np.tanh(lift) - 0.18 * sinking, 0.08, 1.05)
    cloud = np.clip(0.42 + 0.4 * np.maximum(lift, 0) + 2.6 * (humidity - 0.7) - 0.3 * sinking, 0, 1)
    t2m, heating = _daily_cycle(grid, hours, calm_air, cloud)
    t2m += 0.35 * random["texture"].field(lat, lon, hours) - 0.0062 * height
    d2m = np.minimum(_dew_point(humidity * _vapour_pressure(calm_air)) - 0.0045 * height, t2m)
    wind = _wind10(land, flow, heating)
    cells = random["cells"].field(lat, lon, hours)
    tp, cp = _rain(grid, hours, d2m, calm_air, sea, lift, sinking, heating, cells)
    msl = 100 * inner(air.msl)
    variables = {
        "u10": wind[0],
        "v10": wind[1],
        "t2m": t2m,
        "d2m": d2m,
        "msl": msl,
        "sp": msl * np.exp(np.float32(-GRAVITY / GAS_CONSTANT) * height / (t2m + 0.0032 * height)),
        "sst": np.where(land > 0.5, np.float32(np.nan), sea),
        "tp": tp,
        "cp": cp,
        "ssrd": _sunshine(grid, hours, np.clip(cloud + 150 * tp, 0, 1)),
    }
    return _Surface(variables, lift, sinking, humidity)


def _vertical_motion(grid: Grid, air: Air, flow: Flow) -> tuple[Field, Field]:
    """Lifting and sinking of the air, as in `_Surface`."""
    u, v = balanced_wind(flow.base, flow.coriolis, FRICTION_LAND, top=60)
    slope = slope_of(grid.height[None], grid)
    upslope = u * slope.east + v * slope.north
    cyclonic = np.clip(flow.vorticity / 1e-4, -1, 3)
    trough = 1 / (1 + np.exp(-6 * (cyclonic - 0.15)))
    lift = (
        0.55 * np.clip(flow.advection, -1.5, 2.5)
        + 0.5 * cyclonic
        + 0.35 * trough * np.minimum(flow.contrast, 4)
        + 7 * np.clip(upslope, -0.1, 0.15)
        + 0.15 * inner(air.core)
        - 0.05 * np.clip(inner(air.msl) - 1013, -20, 25)
        - 0.15
    )
    high = np.clip((inner(air.msl) - 1016) / 16, 0, 1)
    behind = np.clip(-flow.advection / 1.5 - 0.2, 0, 1)
    return lift, np.clip(high + 0.5 * behind, 0, 1)


def _moisture(grid: Grid, hours: Floats, air: Air, free: Field, sea: Field, noise: Field) -> Field:
    """Vapour pressure (hPa) near the ground: what the air brought along, mixed over sea with what rises there."""
    warmth = air.warmth[:, HALO:-HALO]
    column = grid.latitude.astype(np.float32)[:, None]
    inland = inner(grid.inland)
    desert = np.exp(-np.square((np.abs(column) - 24) / 9)) * (1 - _rain_belt(grid, hours))
    from_equator = np.abs(column) - np.abs(inner(air.origin))
    share = 0.76 - inland * (0.08 + 0.10 * warmth + 0.40 * desert)
    share = share + 0.05 * noise + 0.05 * _rain_belt(grid, hours) + 0.012 * np.clip(from_equator, -10, 12)
    carried = share * _vapour_pressure(free)
    evaporated = 0.78 * _vapour_pressure(np.minimum(sea, free + 4))
    return carried + 0.4 * (1 - grid.land) * (evaporated - carried)


def _rain_belt(grid: Grid, hours: Floats) -> Field:
    """1 at the centre of the tropical rain belt, which follows the sun, as (hour, latitude, 1)."""
    centre = (6 * summer(hours)).astype(np.float32)[:, None, None]
    return np.exp(-np.square((grid.latitude.astype(np.float32)[:, None] - centre) / 7))


def _daily_cycle(grid: Grid, hours: Floats, calm_air: Field, cloud: Field) -> tuple[Field, Field]:
    """2 m temperature at sea level height (K), and the heating of the ground by day (0..1)."""
    noon = np.cos(np.radians(grid.latitude)[None, :] - np.radians(23.44) * summer(hours, 0)[:, None])
    local = (hours[:, None] + grid.longitude[None, :] / 15) % 24
    wave = np.cos((local - 14.5) * np.pi / 12)[:, None, :].astype(np.float32)
    sun = np.clip(noon, 0.02, 1).astype(np.float32)[:, :, None]
    clear = 1 - 0.75 * cloud
    day = grid.land * (1.0 + 6.5 * sun) * clear
    night = grid.land * 3.5 * (1 - sun) * (clear - 0.35)
    sea = 0.25 * (1 - grid.land)
    heating = np.maximum(wave, 0) * sun * clear
    return calm_air + (day + sea) * wave - night, heating


def _wind10(land: Field, flow: Flow, heating: Field) -> tuple[Field, Field]:
    """Wind at 10 m: the balanced wind, turned and slowed by the ground, less so when the air is mixed by day."""
    friction = FRICTION_SEA + (FRICTION_LAND - FRICTION_SEA) * land
    u, v = balanced_wind(flow.base, flow.coriolis, friction, top=45)
    share = 0.80 - land * (0.25 - 0.12 * heating)
    return share * u, share * v


def _rain(
    grid: Grid,
    hours: Floats,
    d2m: Field,
    air: Field,
    sea: Field,
    lift: Field,
    sinking: Field,
    heating: Field,
    cells: Field,
) -> tuple[Field, Field]:
    """Total and convective precipitation of the hour, m.

    Steady rain falls where moist air is lifted; showers need heated or moist unstable air and come in cells.
    """
    water = np.exp(0.055 * np.clip(d2m - 281, -40, 18))
    humid = np.clip((d2m - air + 9) / 8, 0, 1)
    steady = 0.7 * water * humid * np.maximum(lift - 0.25, 0) ** 1.1 * np.clip(1 + 0.3 * cells, 0.3, 2)
    heat = 1.6 * grid.land * heating * np.clip((d2m - 282) / 8, 0, 1.5)
    cold_air = (1 - grid.land) * np.clip((sea - air - 2.5) / 6, 0, 1) * 0.6
    unstable = (heat + cold_air + 0.7 * _rain_belt(grid, hours)) * (1 - sinking) + 0.25 * np.clip(lift, 0, 2)
    showers = 2.2 * water * humid * unstable * np.maximum(cells - 0.9, 0)
    share = np.clip((air - 278) / 25, 0.05, 0.6)
    millimetres = 30 * np.tanh((steady + showers) / 30)
    millimetres = np.maximum(millimetres - 0.02, 0)
    convective = millimetres * (showers + share * steady) / np.maximum(steady + showers, 1e-6)
    return millimetres / 1000, convective / 1000


def _sunshine(grid: Grid, hours: Floats, cloud: Field) -> Field:
    """Solar radiation that reached the ground in the hour before, J/m2; exactly 0 at night."""
    thirds = [sun_height(grid.latitude, grid.longitude, hours - before) for before in (5 / 6, 1 / 2, 1 / 6)]
    mean = sum(np.maximum(third, 0) for third in thirds) / 3
    clear = 1361 * mean * np.float32(0.79) * np.maximum(mean, np.float32(1e-6)) ** np.float32(0.12)
    return 3600 * clear * (1 - 0.75 * cloud * cloud)


def _relative_humidity(level: int, surface: _Surface) -> Field:
    """Relative humidity in % at a pressure level (hPa)."""
    s = np.log(1000 / level)
    drying = min(max(s, 0) / 0.4, 1)
    humidity = (0.5 + 0.5 * np.exp(-s / 0.5)) * surface.humidity
    humidity = humidity + 0.30 * np.tanh(np.maximum(surface.lift, 0)) - 0.38 * drying * surface.sinking
    return 100 * np.clip(humidity, 0.02, 1.0) * min(1, level / 200)
