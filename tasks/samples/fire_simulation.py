"""One sample fire: where it starts, which hours of wind it sees, how it burns, and the crop that shows it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.fire_sample import SampleFires
from tasks.samples.fire_fuels import FUELS
from tasks.samples.fire_landscape import Landscape
from tasks.samples.fire_spread import Surface, arrival_minutes, burnt_frames
from tasks.samples.fire_wind import HOURS, Wind

SHARED_WEATHER = 0.25
"""Share of fires that see the same hours as an earlier fire nearby."""
NEARBY = 0.08
"""Distance between such fires along the columns, as a share of the landscape."""
SMALLEST_CROP = 40
MARGINS = (6, 24)
"""Cells between a burnt area and the border of its crop, least and most."""
ATTEMPTS = 40
PATIENCE = 3
"""Attempts after which a fire may end early."""
EDGE = 8
"""No fire starts so close to the border of the landscape."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a fire is meant to be, before anything burns."""

    place: tuple[float, float]
    """Rows and columns from the north-west, as shares of the landscape."""
    first_hour: int
    frames: int


@dataclass(frozen=True)
class Fire:
    """A fire that has burnt, in its crop."""

    ignition: tuple[int, int]
    """Row and column in the landscape."""
    first_hour: int
    """Row of the wind record that drives the first hour."""
    crop: tuple[int, int, int, int]
    """y0, y1, x0, x1 in the landscape, half-open."""
    frames: NDArray[np.bool_]
    """(T, rows, columns) of the crop."""

    def truth(self) -> dict[str, Any]:
        """Return what is known of the fire, as JSON."""
        record = asdict(self)
        record["frames"] = len(self.frames)
        return {**record, "burnt": [int(frame.sum()) for frame in self.frames]}


def plan_fire(config: SampleFires, index: int) -> Plan:
    """Return the plan of a fire; it depends on the seed, the index and the frames' limits alone.

    Places are a low-discrepancy sequence (Roberts' R2), so that however many fires there are, they fill the landscape
    evenly. Lengths are as well, from a distribution in which every further hour is less frequent.
    """
    rng = np.random.default_rng((config.seed, 2, index))
    place = _place(config.seed, index)
    if index and rng.random() < SHARED_WEATHER:
        near = [j for j in range(index) if abs(_place(config.seed, j)[1] - place[1]) < NEARBY]
        if near:
            other = plan_fire(config, int(rng.choice(near)))
            return Plan(place, other.first_hour, other.frames)
    lengths = np.arange(config.min_frames, config.max_frames + 1)
    weight = np.cumsum(config.max_frames + 2.0 - lengths)
    offset = np.random.default_rng((config.seed, 3)).random()
    frames = lengths[np.searchsorted(weight, (offset + index * 0.6180339887) % 1 * weight[-1], side="right")]
    return Plan(place, _first_hour(rng, int(frames)), int(frames))


def _place(seed: int, index: int) -> tuple[float, float]:
    offset = np.random.default_rng((seed, 4)).random(2)
    row, column = (offset + (index + 1) * np.array([0.7548776662, 0.5698402910])) % 1
    return float(row), float(column)


def _first_hour(rng: np.random.Generator, frames: int) -> int:
    """Most fires start around noon."""
    day = int(rng.integers(HOURS // 24 - frames // 24 - 2))
    return 24 * day + int(np.clip(np.rint(rng.normal(13, 5)), 0, 23))


def burn(config: SampleFires, landscape: Landscape, wind: Wind, index: int) -> Fire:
    """Simulate a fire; it starts again, somewhere near, while it finds nothing to burn or outgrows its crop."""
    plan = plan_fire(config, index)
    rng = np.random.default_rng((config.seed, 5, index))
    best: tuple[tuple[int, int], int, NDArray[np.bool_], tuple[int, int]] | None = None
    for attempt in range(ATTEMPTS):
        ignition = _ignition(rng, plan.place, landscape, attempt)
        first_hour = plan.first_hour if attempt < 4 else _first_hour(rng, plan.frames)
        if ignition is None:
            continue
        frames, corner = _simulate(config, landscape, wind.window(first_hour, plan.frames - 1), ignition)
        if len(frames) >= config.min_frames and frames[-1].sum() > 1 and (best is None or len(frames) > len(best[2])):
            best = ignition, first_hour, frames, corner
        if best is not None and (len(best[2]) == plan.frames or attempt >= PATIENCE):
            ignition, first_hour, frames, corner = best
            crop = _crop(rng, config, frames[-1], corner, whole_tokens=index % 10 == 9)
            return Fire(ignition, first_hour, crop, _cut(frames, corner, crop))
    raise ValueError(
        f"fire {index + 1} found no place to burn for {config.min_frames} frames in {ATTEMPTS} attempts; raise "
        f"largest_crop ({config.largest_crop}) or cell_metres ({config.cell_metres:g}), or lower min_frames"
    )


def _ignition(
    rng: np.random.Generator, place: tuple[float, float], landscape: Landscape, attempt: int
) -> tuple[int, int] | None:
    """Return a burnable cell near the place, farther away with every attempt; None if chance did not hit one."""
    shape = np.array(landscape.fuel.shape)
    for _ in range(30):
        share = np.asarray(place) + rng.normal(scale=0.004 + 0.008 * attempt, size=2)
        row, column = (int(n) for n in np.clip(share * shape, EDGE, shape - 1 - EDGE))
        if int(landscape.fuel[row, column]) in FUELS:
            return row, column
    return None


def _simulate(
    config: SampleFires, landscape: Landscape, wind: NDArray[np.float64], ignition: tuple[int, int]
) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Return the frames during which a fire fits a crop, in a box around its ignition, and the box's corner."""
    row, column = ignition
    far = config.largest_crop
    box = (slice(max(0, row - far), row + far + 1), slice(max(0, column - far), column + far + 1))
    corner = box[0].start, box[1].start
    surface = Surface.of(landscape, config.cell_metres, box)
    room = config.largest_crop - 2 * MARGINS[0]
    arrival = arrival_minutes(surface, (row - corner[0], column - corner[1]), wind, room)
    frames = burnt_frames(arrival, len(wind) + 1)
    fits = [max(_extent(frame, axis)[1] - _extent(frame, axis)[0] for axis in (0, 1)) <= room for frame in frames]
    return frames[: sum(fits)], corner


def _extent(burnt: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """Return the first burnt row (axis 0) or column, and the one after the last."""
    places = np.flatnonzero(burnt.any(axis=1 - axis))
    return int(places[0]), int(places[-1]) + 1


def _crop(
    rng: np.random.Generator,
    config: SampleFires,
    burnt: NDArray[np.bool_],
    corner: tuple[int, int],
    *,
    whole_tokens: bool,
) -> tuple[int, int, int, int]:
    """Return a crop around a burnt area with a random margin on each side; of multiples of 16 with `whole_tokens`."""
    bounds: list[int] = []
    for axis, length in enumerate((config.rows, config.columns)):
        first, last = (corner[axis] + n for n in _extent(burnt, axis))
        before, after = (int(n) for n in rng.integers(MARGINS[0], MARGINS[1] + 1, size=2))
        size = min(max(last - first + before + after, SMALLEST_CROP), config.largest_crop, length)
        if whole_tokens:
            size = min(-(-size // 16) * 16, config.largest_crop // 16 * 16, length // 16 * 16)
        spare = size - (last - first)
        start = first - round(spare * before / (before + after))
        start = min(max(start, 0), length - size)
        bounds += [start, start + size]
    return bounds[0], bounds[1], bounds[2], bounds[3]


def _cut(frames: NDArray[np.bool_], corner: tuple[int, int], crop: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Move frames from their box, which lies at `corner`, into a crop."""
    cut = np.zeros((len(frames), crop[1] - crop[0], crop[3] - crop[2]), bool)
    time, row, column = np.nonzero(frames)
    cut[time, row + corner[0] - crop[0], column + corner[1] - crop[2]] = True
    return cut
