"""Samples "history of a fire -> its next frame" from a token cache, and their batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from models.fire.batch import FireBatch
from storage.fire_split import PARTS, FireEntry, FireSplit, Part, Statistics
from storage.token_cache import TokenCache
from tasks.fire.standardise import Region, StandardInputs, fires_in_memory, of_grid
from tasks.fire.turns import Turn

FRONTS = 4096
"""Fronts that a dataset keeps, of a few hundred tokens each."""


@dataclass(slots=True, eq=False)
class FireSample:
    """One sample of T frames and a grid of N = Gy x Gx tokens; names and values as in `FireBatch`.

    Pixel arrays are h x w, the part of the grid's pixels that lies inside the crop; it begins at `offset` in the grid
    (not at 0, 0 when a padded grid was flipped). They are views of what other samples see too: do not write to them.
    """

    fire_index: int
    step: int
    patch: int
    grid: tuple[int, int]
    offset: tuple[int, int]
    fire: NDArray[np.float32]
    wind: NDArray[np.float32]
    wind_valid: NDArray[np.bool_]
    static: NDArray[np.float32]
    token_valid: NDArray[np.bool_]
    age: NDArray[np.uint8]
    terrain: Sequence[NDArray[np.float32]]
    terrain_valid: Sequence[NDArray[np.bool_]]
    classes: NDArray[np.uint8]
    domain: NDArray[np.bool_]
    burnable: NDArray[np.bool_]
    target: NDArray[np.bool_]
    counted: NDArray[np.bool_]


class FireDataset:
    """The samples (fire, t) of one part: history frames 0..t, target frame t + 1, in a fixed order.

    `split` is the folder of a split; for part "all" the statistics that standardise the cache are enough.

    `history` bounds the frames, the last included. With `window_tokens`, a sample is a random token-aligned window of
    at most so many tokens per side that holds part of the last frame's front; without it, all of the fire's region.
    `augment` turns and flips; `wind=False` and `static=False` are ablations that blank their channels.

    Everything lies in memory after the first use, so that DataLoader workers share it when they fork.
    """

    def __init__(
        self,
        cache: Path,
        split: Path | Statistics,
        part: Literal["train", "validation", "test", "all"],
        *,
        history: int,
        window_tokens: int | None = None,
        augment: bool = False,
        wind: bool = True,
        static: bool = True,
    ) -> None:
        if history < 1 or (window_tokens is not None and window_tokens < 1):
            raise ValueError(f"history ({history}) and window_tokens ({window_tokens}) must be at least 1")
        self.cache = TokenCache.open(cache)
        self.statistics = split if isinstance(split, Statistics) else Statistics.load(split)
        entries = self._everything() if part == "all" else self._of_part(split, part)
        self._arguments = (cache, split, part), (history, window_tokens, augment, wind, static)
        self.history, self.window_tokens, self.augment = history, window_tokens, augment
        self._regions = {entry.fire: entry.region for entry in entries}
        self.samples = [(e.fire, t) for e in entries for t in range(self.cache.steps[e.fire] - 1)]
        self.fires = [entry.fire for entry in entries]
        self._inputs = StandardInputs(self.cache, self.statistics, wind=wind, static=static)
        self.spec = self._inputs.spec
        self._arrival = lru_cache(fires_in_memory(self.cache))(self.cache.arrival)
        self._front = lru_cache(FRONTS)(self._find_front)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, self._arguments

    def __len__(self) -> int:
        return len(self.samples)

    def _of_part(self, split: Path | Statistics, part: Part) -> list[FireEntry]:
        assert isinstance(split, Path), "statistics alone know no parts"
        if part not in PARTS:
            raise ValueError(f"there is no part {part!r}, only {', '.join(PARTS)} and all")
        fires = FireSplit.load(split)
        if [entry.name for entry in fires.fires] != list(self.cache.names):
            raise ValueError(f"the split in {split} was made for another cache; make it anew")
        return fires.part(part)

    def _everything(self) -> list[FireEntry]:
        return [
            FireEntry(fire=i, name=name, part=None, group=i, region=(0, crop.rows, 0, crop.columns))
            for i, (name, crop) in enumerate(zip(self.cache.names, self.cache.crops, strict=True))
        ]

    def place(self, index: int) -> tuple[int, int, int, int]:
        """Return where the whole region of sample `index` lies: rows y0 to y1 and columns x0 to x1 of the landscape."""
        fire, _ = self.samples[index]
        rows, columns = self._pixels(fire, self._regions[fire])
        crop = self.cache.crops[fire]
        return crop.y0 + rows.start, crop.y0 + rows.stop, crop.x0 + columns.start, crop.x0 + columns.stop

    def _pixels(self, fire: int, region: Region) -> tuple[slice, slice]:
        """Return the pixels of a region, inside the crop."""
        crop, patch = self.cache.crops[fire], self.spec.patch
        gy0, gy1, gx0, gx1 = region
        return slice(gy0 * patch, min(gy1 * patch, crop.height)), slice(gx0 * patch, min(gx1 * patch, crop.width))

    def sample(self, index: int, seed: int) -> FireSample:
        """Return sample `index`; everything random in it comes from `seed`."""
        fire, step = self.samples[index]
        region, turn = self._regions[fire], Turn()
        if self.window_tokens is not None or self.augment:
            random = np.random.default_rng(seed)
            if self.window_tokens is not None:
                region = self._window(fire, step, region, random)
            if self.augment:
                turn = Turn.draw(random)
        rows, columns = self._pixels(fire, region)
        crop, patch = self.cache.crops[fire], self.spec.patch
        land = slice(crop.y0 + rows.start, crop.y0 + rows.stop), slice(crop.x0 + columns.start, crop.x0 + columns.stop)
        frames = min(self.history, step + 1)
        now = np.uint8(step + 1)
        age = np.minimum(now - np.minimum(self._arrival(fire)[rows, columns], now), np.uint8(frames))
        inputs = self._inputs
        wind, wind_valid = inputs.wind(fire, slice(step + 1 - frames, step + 1), turn)
        gy, gx = region[1] - region[0], region[3] - region[2]
        static, token_valid = inputs.tokens(fire, region, turn)
        bands, bands_valid = inputs.bands(turn)
        domain = inputs.domain[land]
        shares = of_grid(self.cache.fire_share(fire)[step + 1 - frames : step + 1], crop.columns, region)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        spare_rows, spare_columns = gy * patch - height, gx * patch - width
        if turn.transpose:
            gy, gx, spare_rows, spare_columns = gx, gy, spare_columns, spare_rows
        return FireSample(
            fire_index=fire,
            step=step,
            patch=patch,
            grid=(gy, gx),
            offset=(spare_rows if turn.flip_rows else 0, spare_columns if turn.flip_columns else 0),
            fire=turn.map(shares).reshape(frames, -1).astype(np.float32),
            wind=wind,
            wind_valid=wind_valid,
            static=static,
            token_valid=token_valid,
            age=turn.map(age),
            terrain=[turn.map(inputs.terrain[band][land]) for band in bands],
            terrain_valid=[turn.map(inputs.terrain_valid[band][land]) for band in bands_valid],
            classes=turn.map(inputs.classes[:, *land]),
            domain=turn.map(domain),
            burnable=turn.map(inputs.burnable[land]),
            target=turn.map(self.cache.target(fire, step + 1)[rows, columns]),
            counted=turn.map(domain & self._fire_in_sight(fire, step, rows, columns)),
        )

    def _fire_in_sight(self, fire: int, step: int, rows: slice, columns: slice) -> NDArray[np.bool_]:
        """Return (h, w): whether the nearest pixel that burns in frame `step` lies in these rows and columns."""
        from scipy.ndimage import distance_transform_edt

        burnt = self._arrival(fire) <= step
        if np.count_nonzero(burnt) == np.count_nonzero(burnt[rows, columns]):
            return np.ones_like(burnt[rows, columns])
        high, wide = (_around(burnt, axis, part) for axis, part in enumerate((rows, columns)))
        near = burnt[high, wide]
        inside = np.s_[
            rows.start - high.start : rows.stop - high.start, columns.start - wide.start : columns.stop - wide.start
        ]
        nearest = distance_transform_edt(~near, return_distances=False, return_indices=True)[:, *inside]
        in_sight = np.zeros_like(near)
        in_sight[inside] = True
        return in_sight[tuple(nearest)]

    def _window(self, fire: int, step: int, region: Region, random: np.random.Generator) -> Region:
        """Draw a window that holds a token of the front: burnt, with something unburnt in it or beside it."""
        assert self.window_tokens is not None
        gy0, gy1, gx0, gx1 = region
        high, wide = min(self.window_tokens, gy1 - gy0), min(self.window_tokens, gx1 - gx0)
        if (high, wide) == (gy1 - gy0, gx1 - gx0):
            return region
        candidates = self._front(fire, step)
        row, column = candidates[random.integers(len(candidates))].tolist()
        top = int(random.integers(max(0, row - high + 1), min(row, gy1 - gy0 - high) + 1))
        left = int(random.integers(max(0, column - wide + 1), min(column, gx1 - gx0 - wide) + 1))
        return gy0 + top, gy0 + top + high, gx0 + left, gx0 + left + wide

    def _find_front(self, fire: int, step: int) -> NDArray[np.int16]:
        """Return row and column in the fire's region of every front token; without a front, of whatever comes next."""
        region, columns = self._regions[fire], self.cache.crops[fire].columns
        share = of_grid(self.cache.fire_share(fire)[step], columns, region)
        domain = of_grid(self.cache.static(fire).domain_share, columns, region)
        can_grow = (share < 1) & (domain > 0)
        near = can_grow.copy()
        near[1:] |= can_grow[:-1]
        near[:-1] |= can_grow[1:]
        near[:, 1:] |= can_grow[:, :-1]
        near[:, :-1] |= can_grow[:, 1:]
        burnt = share > 0
        front = burnt & near
        return np.argwhere(front if front.any() else burnt if burnt.any() else domain >= 0).astype(np.int16)


def _again(head: tuple[Any, ...], options: tuple[Any, ...]) -> FireDataset:
    history, window_tokens, augment, wind, static = options
    return FireDataset(
        *head, history=history, window_tokens=window_tokens, augment=augment, wind=wind, static=static
    )  # fmt: skip


def _around(burnt: NDArray[np.bool_], axis: int, part: slice) -> slice:
    """Return the least slice of an axis of a map that holds a part of it and all that burns."""
    where = np.flatnonzero(burnt.any(axis=1 - axis))
    return slice(min(part.start, int(where[0])), max(part.stop, int(where[-1]) + 1))


def collate(samples: Sequence[FireSample]) -> FireBatch:
    """Pad samples to common sizes, time on the left, space at the bottom and on the right, with zeros."""
    gy, gx = (max(s.grid[axis] for s in samples) for axis in (0, 1))
    arrays = _pad_tokens(samples, gy, gx) | _pad_pixels(samples, gy * samples[0].patch, gx * samples[0].patch)
    return FireBatch(
        **{name: torch.from_numpy(array) for name, array in arrays.items()},
        fire_index=torch.tensor([s.fire_index for s in samples]),
        step=torch.tensor([s.step for s in samples]),
        grid=(gy, gx),
    )


def _pad_tokens(samples: Sequence[FireSample], gy: int, gx: int) -> dict[str, NDArray[Any]]:
    """Return what has a token or time axis, by its name in `FireBatch`."""
    batch, frames = len(samples), max(len(s.wind) for s in samples)
    fire = np.zeros((batch, frames, gy, gx), np.float32)
    time_valid, wind_valid = np.zeros((2, batch, frames), bool)
    wind = np.zeros((batch, frames, 3), np.float32)
    static = np.zeros((batch, gy, gx, samples[0].static.shape[1]), np.float32)
    token_valid = np.zeros((batch, gy, gx), bool)
    for b, s in enumerate(samples):
        rows, columns = s.grid
        first = frames - len(s.wind)
        fire[b, first:, :rows, :columns] = s.fire.reshape(-1, rows, columns)
        time_valid[b, first:] = True
        wind[b, first:], wind_valid[b, first:] = s.wind, s.wind_valid
        static[b, :rows, :columns] = s.static.reshape(rows, columns, -1)
        token_valid[b, :rows, :columns] = s.token_valid.reshape(rows, columns)
    return {
        "fire": fire.reshape(batch, frames, -1), "time_valid": time_valid, "wind": wind, "wind_valid": wind_valid,
        "static": static.reshape(batch, gy * gx, -1), "token_valid": token_valid.reshape(batch, -1),
    }  # fmt: skip


def _pad_pixels(samples: Sequence[FireSample], height: int, width: int) -> dict[str, NDArray[Any]]:
    """Return what has pixels, by its name in `FireBatch`."""
    batch, bands, categories = len(samples), len(samples[0].terrain), len(samples[0].classes)
    new = np.empty if all(s.age.shape == (height, width) for s in samples) else np.zeros
    age = new((batch, height, width), np.uint8)
    terrain = new((batch, bands, height, width), np.float32)
    terrain_valid = new(terrain.shape, bool)
    classes = new((batch, categories, height, width), np.int64)
    masks = {name: new((batch, height, width), bool) for name in ("domain", "burnable", "target", "counted")}
    for b, s in enumerate(samples):
        (top, left), (high, wide) = s.offset, s.age.shape
        place = np.s_[..., top : top + high, left : left + wide]
        age[b][place], classes[b][place] = s.age, s.classes
        for name, mask in masks.items():
            mask[b][place] = getattr(s, name)
        for band, (values, valid) in enumerate(zip(s.terrain, s.terrain_valid, strict=True)):
            terrain[b, band][place], terrain_valid[b, band][place] = values, valid
    return {"age": age, "terrain": terrain, "terrain_valid": terrain_valid, "classes": classes, **masks}
