"""Moving lows and highs: when and where they are born, how they travel, and what they do to the air.

Births are drawn day by day from (seed, kind, hemisphere, day), so the systems of any moment can be listed
without simulating the days before it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tasks.samples.weather_earth import EARTH_RADIUS_M, is_land, sea_temperature, summer
from tasks.samples.weather_noise import Floats

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Kind:
    """The climate of one kind of system; ranges are drawn from evenly unless said otherwise."""

    births_per_day: float
    """Mean number of births per day and hemisphere."""
    life_days: Range
    latitude: Range
    """Degrees from the equator at birth."""
    depth_hpa: Range
    """Pressure deficit of the centre at its peak; small ones are more common; negative for highs."""
    radius_km: Range
    """Where the system ends."""
    twist: Range
    """Radians by which the air at the centre has been turned at the end; negative for highs."""
    drift: tuple[Range, Range]
    """Eastward speed in m/s at the start and at the end of life."""
    poleward: Range
    """Speed towards the pole in m/s."""
    winter_bias: float = 0.0
    """1: deep in winter and half as deep in summer; 0: no season."""
    warm_k: float = 0.0
    """Warmth of the deep air column above the centre, K at peak strength."""
    tropical: bool = False
    """A compact warm-core low that is born over warm sea only and dies over land."""


KINDS: tuple[Kind, ...] = (
    Kind(  # travelling lows of the storm tracks
        births_per_day=3.6,
        life_days=(4, 7),
        latitude=(37, 60),
        depth_hpa=(6, 42),
        radius_km=(1400, 2700),
        twist=(1.3, 3.0),
        drift=((9, 17), (3, 9)),
        poleward=(0.5, 3.5),
        winter_bias=1.0,
    ),
    Kind(  # small lows far from the jet, e.g. over the Mediterranean
        births_per_day=1.4,
        life_days=(2.5, 5),
        latitude=(28, 44),
        depth_hpa=(5, 20),
        radius_km=(700, 1300),
        twist=(1.0, 2.2),
        drift=((2, 8), (2, 8)),
        poleward=(-1, 2),
        winter_bias=0.7,
        warm_k=-3.0,
    ),
    Kind(  # travelling highs
        births_per_day=1.6,
        life_days=(4, 8),
        latitude=(32, 55),
        depth_hpa=(-20, -6),
        radius_km=(1900, 3400),
        twist=(-0.9, -0.4),
        drift=((5, 11), (2, 7)),
        poleward=(-1.5, 1.0),
        warm_k=1.5,
    ),
    Kind(  # blocking highs: heat in summer, still cold air in winter
        births_per_day=0.30,
        life_days=(8, 13),
        latitude=(42, 62),
        depth_hpa=(-30, -17),
        radius_km=(2000, 3200),
        twist=(-1.5, -0.9),
        drift=((-1, 3), (-2, 2)),
        poleward=(-0.5, 1.0),
        warm_k=7.0,
    ),
    Kind(  # tropical cyclones, which recurve eastwards
        births_per_day=0.8,
        life_days=(7, 12),
        latitude=(9, 19),
        depth_hpa=(12, 85),
        radius_km=(700, 1200),
        twist=(0.6, 1.2),
        drift=((-7, -4), (2, 10)),
        poleward=(1.5, 4.0),
        tropical=True,
    ),
)
_LONGEST_DAYS = int(np.ceil(max(kind.life_days[1] for kind in KINDS)))
_KNOT_HOURS = 6.0


@dataclass(frozen=True, slots=True)
class System:
    """One low or high from birth to death."""

    kind: Kind
    hemisphere: int
    """+1 north, -1 south."""
    birth: float
    """Hours since 1970-01-01T00 UTC."""
    life: float
    """Hours."""
    start: tuple[float, float]
    """Latitude and longitude of birth."""
    velocity: tuple[float, float]
    """Degrees north and east per day at birth."""
    acceleration: float
    """Change of the eastward velocity, degrees per day squared."""
    depth_hpa: float
    radius_km: float
    twist: float
    stretch: float
    """Length over width of the isobars."""
    tilt: float
    """Direction of the long axis, radians counterclockwise from east."""
    survival: tuple[float, ...] = (1.0,)
    """Strength left every 6 hours, below 1 once a tropical cyclone has crossed land."""

    def centre(self, hours: Floats) -> tuple[Floats, Floats]:
        """Latitude and longitude at `hours`."""
        days = (np.asarray(hours) - self.birth) / 24
        north, east = self.velocity
        latitude = np.clip(self.start[0] + north * days, -85, 85)
        return latitude, self.start[1] + east * days + 0.5 * self.acceleration * days**2

    def strength(self, hours: Floats) -> Floats:
        """0 at birth and death, 1 at the peak, which comes a little before half of the life."""
        hours = np.asarray(hours)
        age = np.clip((hours - self.birth) / self.life, 0, 1)
        knots = self.birth + _KNOT_HOURS * np.arange(len(self.survival))
        return np.sin(np.pi * age**0.8) ** 1.5 * np.interp(hours, knots, self.survival)


def active_systems(seed: int, first_hour: float, last_hour: float) -> list[System]:
    """All systems alive at some moment of the closed interval, in the order of their births."""
    first_day = int(first_hour // 24) - _LONGEST_DAYS
    days = range(first_day, int(last_hour // 24) + 1)
    born = (system for day in days for system in _births(seed, day))
    return [s for s in born if s.birth < last_hour and s.birth + s.life > first_hour]


@lru_cache(maxsize=64)
def _births(seed: int, day: int) -> tuple[System, ...]:
    """The systems that are born on a day (counted from 1970-01-01)."""
    found = []
    for index, kind in enumerate(KINDS):
        for hemisphere in (1, -1):
            generator = np.random.default_rng((seed, index, hemisphere + 1, day + 10_000_000))
            count = int(kind.births_per_day + generator.random())
            for number, draw in enumerate(generator.random((count, 12))):
                # successive births stand a golden section apart: even cover of all longitudes, no pattern
                longitude = 360 * ((day * kind.births_per_day + number) * 0.6180339887 + 0.2 * draw[0])
                system = _born(kind, hemisphere, 24 * (day + draw[1]), longitude % 360, draw)
                if not kind.tropical:
                    found.append(system)
                elif _warm_sea(system):
                    found.append(_with_landfall(system))
    return tuple(found)


def _between(limits: Range, draw: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * draw


def _born(kind: Kind, hemisphere: int, birth: float, longitude: float, draw: Floats) -> System:
    warmth = hemisphere * float(summer(np.array(birth)))
    latitude = _between(kind.latitude, draw[2]) + (0 if kind.tropical else 4 * warmth)
    weak, strong = sorted(kind.depth_hpa, key=abs)
    size = draw[3] ** 1.7
    depth = _between((weak, strong), size) * (1 - kind.winter_bias * 0.25 * (1 + warmth))
    if not kind.tropical:
        depth *= min(1.0, np.sin(np.radians(latitude)) / np.sin(np.radians(50)))
    radius = _between(kind.radius_km, 0.55 * size + 0.45 * draw[4])
    life = 24 * _between(kind.life_days, draw[5])
    degrees_per_day = 86_400 * 180 / np.pi / EARTH_RADIUS_M
    east = degrees_per_day / np.cos(np.radians(latitude))
    first, last = (_between(limits, draw[6]) * east for limits in kind.drift)
    return System(
        kind=kind,
        hemisphere=hemisphere,
        birth=birth,
        life=life,
        start=(hemisphere * latitude, longitude),
        velocity=(hemisphere * _between(kind.poleward, draw[7]) * degrees_per_day, first),
        acceleration=(last - first) / (life / 24),
        depth_hpa=depth,
        radius_km=radius,
        twist=_between(kind.twist, 0.5 * size + 0.5 * draw[8]),
        stretch=1.0 if kind.tropical else _between((1.0, 1.4), draw[9]),
        tilt=hemisphere * _between((-0.3, 0.9), draw[10]),
    )


def _warm_sea(system: System) -> bool:
    latitude, longitude = (np.array([degrees]) for degrees in system.start)
    warm = sea_temperature(latitude, np.array([system.birth]))[0] > 299.9
    return bool(warm) and not bool(is_land(latitude, longitude)[0])


def _with_landfall(system: System) -> System:
    """The same cyclone, losing two thirds of its strength with every day over land."""
    hours = system.birth + np.arange(0, system.life + _KNOT_HOURS, _KNOT_HOURS)
    over_land = np.cumsum(is_land(*system.centre(hours)) * _KNOT_HOURS)
    return replace(system, survival=tuple(np.exp(-over_land / 24)))


@dataclass(frozen=True, slots=True)
class Synoptic:
    """What all systems together do, each as float32 (hour, latitude, longitude)."""

    pressure: Floats
    """Change of the mean sea level pressure, hPa."""
    origin: Floats
    """Where the air came from: degrees north of where it is now."""
    warm: Floats
    """Warmth of the deep column, K."""
    core: Floats
    """Warmth of tropical cores aloft, K."""


def superpose(systems: list[System], latitude: Floats, longitude: Floats, hours: Floats) -> Synoptic:
    """Add up the systems on the product grid of `latitude` and `longitude` at each of `hours`."""
    shape = (len(hours), len(latitude), len(longitude))
    total = Synoptic(*(np.zeros(shape, dtype=np.float32) for _ in range(4)))
    for system in systems:
        alive = (hours > system.birth) & (hours < system.birth + system.life)
        if alive.any():
            steps = slice(int(alive.argmax()), len(hours) - int(alive[::-1].argmax()))
            _add(system, total, latitude, longitude, hours, steps)
    return total


def _add(system: System, total: Synoptic, latitude: Floats, longitude: Floats, hours: Floats, steps: slice) -> None:
    """Add one system to the boxes of the grid that it reaches."""
    lat0, lon0 = system.centre(hours[steps])
    reach = np.degrees(system.radius_km * 1000 * np.sqrt(system.stretch) / EARTH_RADIUS_M)
    near = (latitude > lat0.min() - reach) & (latitude < lat0.max() + reach)
    widest = np.cos(np.radians(min(np.abs(lat0).max() + reach, 89.0)))
    away = (longitude[None, :] - lon0[:, None] + 180) % 360 - 180
    columns = (np.abs(away) < reach / widest).any(axis=0)
    for rows in _runs(near):
        for cols in _runs(columns):
            box = (steps, rows, cols)
            _add_box(system, total, box, latitude[rows], away[:, cols], hours[steps])


def _runs(mask: NDArray[np.bool_]) -> list[slice]:
    """`_runs([0, 1, 1, 0, 1])` => [slice(1, 3), slice(4, 5)]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _add_box(
    system: System,
    total: Synoptic,
    box: tuple[slice, slice, slice],
    latitude: Floats,
    away: Floats,
    hours: Floats,
) -> None:
    """Add one system to one box; `away` is the longitude relative to the centre, (hour, column).

    The air is turned around the centre, fast inside and slow outside, which winds the contrast between cold
    and warm air into fronts (the kinematic frontogenesis of Doswell, 1984).
    """
    lat0 = system.centre(hours)[0]
    phi, phi0 = np.radians(latitude), np.radians(lat0)
    y = (2 * np.sin((phi[None, :] - phi0[:, None]) / 2))[:, :, None].astype(np.float32)
    narrow = np.sqrt(np.cos(phi).clip(0)[None, :] * np.cos(phi0)[:, None])[:, :, None].astype(np.float32)
    x = narrow * (2 * np.sin(np.radians(away) / 2))[:, None, :].astype(np.float32)
    c, s = np.cos(system.tilt), np.sin(system.tilt)
    squeeze = np.sqrt(system.stretch) * system.radius_km * 1000 / EARTH_RADIUS_M
    widen = system.radius_km * 1000 / EARTH_RADIUS_M / np.sqrt(system.stretch)
    q = np.square((c * x + s * y) / np.float32(squeeze)) + np.square((c * y - s * x) / np.float32(widen))
    edge = np.maximum(1 - q, 0)  # compact: exactly 0 from the radius on
    strength = system.strength(hours).astype(np.float32)[:, None, None]
    edge2 = edge * edge
    bump = edge2 * edge2
    if system.kind.tropical:
        bump = 0.25 * bump + 0.75 * edge2 / (1 + 60 * q)
        total.core[box] += np.float32(0.17 * system.depth_hpa) * strength * bump
    total.pressure[box] -= np.float32(system.depth_hpa) * strength * bump
    if system.kind.warm_k:
        total.warm[box] += np.float32(system.kind.warm_k) * strength * bump
    age = np.clip((hours - system.birth) / system.life, 0, 1)
    fade = np.minimum(1, (1 - age) / 0.3).astype(np.float32)[:, None, None]
    turned = (system.twist * np.minimum(1, 1.4 * age)).astype(np.float32)[:, None, None]
    angle = turned * edge2 * edge
    shift = y * (np.cos(angle) - 1) - system.hemisphere * x * np.sin(angle)
    total.origin[box] += np.float32(180 / np.pi) * fade * shift
