"""How a sample fire spreads: Rothermel's rate, Anderson's ellipse, and Finney's minimum travel time.

Rate at the head (Rothermel 1972, INT-115): R = R0 (1 + |w + s|), where the wind factor w and the slope factor s are
added as vectors, downwind and uphill. Their sum also sets, as an effective wind, the length to breadth of an ellipse
(Anderson 1983, INT-305) with the origin in its rear focus (Alexander 1985), so the rate at angle a from the head is R
(1 - e) / (1 - e cos a). Crowns catch fire above a critical intensity (Van Wagner 1977) and speed the head up
(Rothermel 1991; blended as in Finney 1998, RMRS-RP-4). Arrival is the least travel time over steps to 16 neighbours
(Finney 2002).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from tasks.samples.fire_fuels import FUELS, burnable
from tasks.samples.fire_landscape import Landscape
from tasks.samples.fire_terrain import Floats, Mask

HOUR = 60.0
FEET_PER_MINUTE = 54.68
"""Of one kilometre per hour."""
MILES_PER_HOUR = 1 / 88.0
"""Of one foot per minute."""
WIND_AT_20_FEET = 1 / 1.15
"""Of the wind 10 m above ground."""
MOISTURE_OF_FOLIAGE = 100.0
HEAT = 18_000.0
"""Heat of combustion, kJ per kg."""
CROWN_FACTOR = 3.34
"""How much faster a full crown fire runs than one on the surface."""
LONGEST_ELLIPSE = 8.0
NEAR = 8
"""Cells around a fire that are looked at first for how far it gets within an hour."""
STEPS = tuple(
    (r, c) for r in range(-2, 3) for c in range(-2, 3) if max(abs(r), abs(c)) == 1 or {abs(r), abs(c)} == {1, 2}
)
"""Rows and columns from a cell to its 16 neighbours: 8 adjacent ones and 8 knight's moves."""


Value = TypeVar("Value", bound=np.generic)


class Head(NamedTuple):
    """The fastest direction of every cell under one wind; arrays (rows, columns)."""

    rate: Floats
    """Metres per minute; 0 where nothing burns."""
    eccentricity: Floats
    east: Floats
    north: Floats
    """Unit vector of the heading."""


@dataclass(frozen=True, slots=True)
class Surface:
    """A piece of the landscape, prepared for spread; arrays (rows, columns)."""

    cell_metres: float
    rate: Floats
    """Without wind and slope, metres per minute; 0 where nothing burns."""
    wind_coefficient: Floats
    wind_exponent: Floats
    """Wind factor = coefficient x (feet per minute at flame height) ** exponent."""
    sheltering: Floats
    slope_east: Floats
    slope_north: Floats
    """The slope factor as a vector uphill."""
    load: Floats
    crown_density: Floats
    crown_base: Floats

    @classmethod
    def of(cls, landscape: Landscape, cell_metres: float, box: tuple[slice, slice]) -> Self:
        """Cut a box out of a landscape."""
        codes = np.array(sorted(FUELS))
        table = np.array([FUELS[code][:5] for code in codes.tolist()])
        fuel = landscape.fuel[box]
        row = np.searchsorted(codes[:-1], fuel)  # whatever row for what cannot burn
        rate, ratio, packing, sheltering, load = (column[row] for column in table.T)
        optimum = 3.348 * ratio**-0.8189
        coefficient = 7.47 * np.exp(-0.133 * ratio**0.55)
        coefficient *= (packing / optimum) ** (-0.715 * np.exp(-3.59e-4 * ratio))
        south, east = (np.asarray(slope)[box] for slope in np.gradient(landscape.elevation, cell_metres))
        slope = 5.275 * packing**-0.3 * np.hypot(south, east)  # times the gradient: tan squared, uphill
        return cls(
            cell_metres=cell_metres,
            rate=np.where(burnable(fuel), rate * landscape.patchiness[box], 0.0),
            wind_coefficient=coefficient,
            wind_exponent=0.02526 * ratio**0.54,
            sheltering=sheltering,
            slope_east=slope * east,
            slope_north=slope * -south,
            load=load,
            crown_density=landscape.crown_density[box],
            crown_base=landscape.crown_base[box],
        )

    def within(self, box: tuple[slice, ...]) -> Self:
        """Return a piece of it."""
        return replace(self, **{field.name: getattr(self, field.name)[box] for field in fields(self)[1:]})

    def head(self, speed: float, direction: float) -> Head:
        """Return the head under a wind in km/h from a direction in degrees."""
        wind = speed * WIND_AT_20_FEET * FEET_PER_MINUTE * self.sheltering
        factor = self.wind_coefficient * wind**self.wind_exponent
        east = self.slope_east - factor * np.sin(np.radians(direction))
        north = self.slope_north - factor * np.cos(np.radians(direction))
        total = np.hypot(east, north)
        effective = (total / self.wind_coefficient) ** (1 / self.wind_exponent) * MILES_PER_HOUR
        effective = np.minimum(effective, 30.0)
        ratio = 0.936 * np.exp(0.1147 * effective) + 0.461 * np.exp(-0.0692 * effective) - 0.397
        eccentricity = np.sqrt(1 - np.clip(ratio, 1.0, LONGEST_ELLIPSE) ** -2)
        norm = np.maximum(total, 1e-12)
        return Head(self._with_crowns(self.rate * (1 + total)), eccentricity, east / norm, north / norm)

    def _with_crowns(self, rate: Floats) -> Floats:
        """Speed up the head where its intensity lights the crowns."""
        critical = (0.010 * self.crown_base * (460 + 25.9 * MOISTURE_OF_FOLIAGE)) ** 1.5
        lighting = critical * 60 / (HEAT * self.load)
        active = np.maximum(3.0 / np.maximum(self.crown_density, 1e-3), lighting + 0.1)
        excess = np.where(self.crown_density > 0, np.maximum(rate - lighting, 0.0), 0.0)
        share = 1 - np.exp(np.log(0.1) / (0.9 * (active - lighting)) * excess)
        return np.asarray(rate * (1 + (CROWN_FACTOR - 1) * share))


def arrival_minutes(surface: Surface, ignition: tuple[int, int], wind: Floats, largest: int | None = None) -> Floats:
    """Return when each cell catches fire, in minutes after ignition; infinite where it does not within the wind's rows.

    `wind` is (hours, 2): speed and direction, constant within the hour. A step between cells that an hour does not
    finish goes on with the speed of the next hour; so arrivals are those of a time-dependent shortest path, in which
    leaving later never means arriving earlier. The search ends with the hour in which the fire becomes more than
    `largest` cells high or wide.
    """
    arrival = np.full(surface.rate.shape, np.inf)
    arrival[ignition] = 0.0
    progress = np.zeros((*arrival.shape, len(STEPS)))
    for hour, (speed, direction) in enumerate(wind):
        box, head = _reach(surface, arrival, float(speed), float(direction))
        minutes = _step_minutes(head, surface.cell_metres)
        _advance(arrival[box], progress[box], minutes, hour * HOUR)
        if largest is not None and max(last - first for first, last in _spans(arrival)) >= largest:
            break
    return arrival


def _reach(surface: Surface, arrival: Floats, speed: float, direction: float) -> tuple[tuple[slice, slice], Head]:
    """Return a box that the fire cannot leave within an hour, and the head in it."""
    spans = _spans(arrival)
    far = NEAR
    while True:
        rows, columns = (slice(max(0, first - far), last + far + 1) for first, last in spans)
        box = (rows, columns)
        head = surface.within(box).head(speed, direction)
        reached = int(HOUR * head.rate.max() / surface.cell_metres) + 3
        if reached <= far or head.rate.shape == arrival.shape:
            return box, head
        far = reached


def _spans(arrival: Floats) -> list[list[int]]:
    """Return the first and last burnt row, and the first and last burnt column."""
    return [np.flatnonzero(np.isfinite(arrival).any(axis=axis))[[0, -1]].tolist() for axis in (1, 0)]


def _step_minutes(head: Head, cell_metres: float) -> Floats:
    """Return (rows, columns, 16): minutes from a cell along each of `STEPS`; infinite where the way is blocked.

    A step crosses cells in equal parts: two if they are adjacent, four for a knight's move. A diagonal step is blocked
    where both cells beside it cannot burn, so that a road or river one cell wide holds.
    """
    rows, columns = head.rate.shape
    minutes = np.empty((rows, columns, len(STEPS)))
    free = np.pad(head.rate > 0, 2)
    with np.errstate(divide="ignore"):
        base = 1 / (head.rate * (1 - head.eccentricity))
    for index, (down, right) in enumerate(STEPS):
        length = float(np.hypot(down, right))
        cosine = (right * head.east - down * head.north) / length
        slowness = np.pad(base * (1 - head.eccentricity * cosine), 2, constant_values=np.inf)
        path = crossed_cells(down, right)
        total = reduce(np.add, [_shifted(slowness, *cell) for cell in path])
        if abs(down) == abs(right):
            total = np.where(_shifted(free, down, 0) | _shifted(free, 0, right), total, np.inf)
        minutes[..., index] = length * cell_metres / len(path) * total
    return minutes


def crossed_cells(down: int, right: int) -> list[tuple[int, int]]:
    """Return the cells that a step crosses, relative to its start; `(1, 2) => [(0, 0), (0, 1), (1, 1), (1, 2)]`."""
    if max(abs(down), abs(right)) == 1:
        return [(0, 0), (down, right)]
    half = (int(down / 2), int(right / 2))
    return [(0, 0), half, (down - half[0], right - half[1]), (down, right)]


def _shifted(padded: NDArray[Value], down: int, right: int) -> NDArray[Value]:
    """View an array padded by 2 at a neighbour of every cell."""
    rows, columns = padded.shape
    return padded[2 + down : rows - 2 + down, 2 + right : columns - 2 + right]


def _advance(arrival: Floats, progress: Floats, minutes: Floats, start: float) -> None:
    """Let an hour pass: find the cells that catch fire in it, and how far the steps still under way have come.

    `arrival` (rows, columns) and `progress` (rows, columns, 16), the share of every step that is done, are updated.
    """
    offset = np.array([down * arrival.shape[1] + right for down, right in STEPS])
    burnt = np.isfinite(arrival)
    rest = (1 - progress[burnt]) * minutes[burnt]
    source, step = np.nonzero(rest <= HOUR)
    entry = np.full(arrival.size, np.inf)
    np.minimum.at(entry, np.flatnonzero(burnt)[source] + offset[step], rest[source, step])
    entry[burnt.ravel()] = np.inf
    entered = np.flatnonzero(np.isfinite(entry))
    steps = np.flatnonzero(_open_steps(burnt, minutes))
    cell, step = np.divmod(steps, len(STEPS))
    count = np.append(np.bincount(cell, minlength=arrival.size), entered.size)
    graph = csr_matrix(
        (
            np.append(minutes.reshape(-1)[steps], np.maximum(entry[entered], 1e-9)),
            np.append(cell + offset[step], entered),
            np.append(0, np.cumsum(count)),
        ),
        shape=(arrival.size + 1,) * 2,
    )
    after = dijkstra(graph, indices=arrival.size, limit=HOUR)[:-1].reshape(arrival.shape)
    caught = after <= HOUR
    arrival[caught] = start + after[caught]
    since = np.where(burnt, HOUR, HOUR - after)
    burning = burnt | caught
    progress[burning] += since[burning][:, None] / minutes[burning]


def _open_steps(burnt: Mask, minutes: Floats) -> Mask:
    """Return (rows, columns, 16): steps between unburnt cells that an hour suffices for."""
    away = np.pad(~burnt, 2)
    free = np.stack([_shifted(away, *step) for step in STEPS], axis=-1)
    return np.asarray(free & ~burnt[..., None] & (minutes <= HOUR))


def burnt_frames(arrival: Floats, frames: int) -> NDArray[np.bool_]:
    """Return (frames, rows, columns): what has burnt t hours after ignition; frame 0 is the ignition alone."""
    hours = np.arange(frames)[:, None, None] * HOUR
    return np.asarray(arrival[None] <= hours)
