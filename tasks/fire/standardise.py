"""A token cache as models see it: bands and wind by the statistics of the training fires, classes by number."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.fire.batch import FireSpec
from storage.fire_split import Statistics
from storage.token_cache import TokenCache
from tasks.fire.landscape import SLOPES
from tasks.fire.turns import Turn

MEMORY = 256 * 2**20
"""Bytes of pixels of decoded fires that a dataset keeps; their tokens are fewer."""

Region = tuple[int, int, int, int]
"""Rows gy0 to gy1 and columns gx0 to gx1 of a token grid, half-open."""


class StandardInputs:
    """What samples are cut from besides the fires: the landscape's pixels and tokens, and the wind.

    `wind=False` and `static=False` are ablations that blank their channels.
    """

    def __init__(self, cache: TokenCache, statistics: Statistics, *, wind: bool, static: bool) -> None:
        self._cache, self._with_wind, self._with_static = cache, wind, static
        names = [band.name for band in statistics.bands]
        self._slopes = tuple(names.index(name) for name in SLOPES) if SLOPES[0] in names else ()
        self._mean = np.array([band.mean for band in statistics.bands], np.float32)
        self._scale = np.array([1 / b.std if b.std > 0 else 0.0 for b in statistics.bands], np.float32)
        self._wind_scale = statistics.wind.mean, statistics.wind.std if statistics.wind.std > 0 else 1.0
        self._seen = _columns_of_codes(cache, statistics)
        classes = cache.array("landscape/classes")
        self.domain = classes[cache.fuel] > 0
        """(H, W)"""
        self.burnable = cache.burnable if static else self.domain
        """(H, W)"""
        self.terrain_valid = cache.array("landscape/valid") & self.domain
        """(bands, H, W)"""
        self.terrain = self._standard(cache.array("landscape/values")) * self.terrain_valid
        """(bands + slopes, H, W); behind the bands follow both slopes, reversed."""
        self.classes = _by_number(cache, statistics, classes) * self.domain
        """(categorical bands, H, W) numbers of classes; 0 is outside of the domain, and what training never saw."""
        if not static:
            self.terrain, self.terrain_valid, self.classes = (
                np.zeros_like(array) for array in (self.terrain, self.terrain_valid, self.classes)
            )
        self.terrain = np.concatenate([self.terrain, -self.terrain[list(self._slopes)]])
        self.spec = FireSpec(
            patch=cache.patch,
            continuous=tuple(names),
            categorical=tuple((c.name, 1 + len(c.codes)) for c in statistics.classes),
            static=2 * len(names) + len(statistics.classes) + len(self._seen),
            cell_metres=cache.cell_metres,
            wind_scale=self._wind_scale,
        )
        self._channels = lru_cache(fires_in_memory(cache))(self._fire_channels)
        self.bands = lru_cache(8)(self._turned_bands)

    def _standard(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return (values - self._mean[:, None, None]) * self._scale[:, None, None]

    def wind(self, fire: int, frames: slice, turn: Turn) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the wind of some frames, (T, 3): speed, east and north; and when it is known, (T,)."""
        measured, known = self._cache.wind(fire)
        measured, known = measured[frames], known[frames]
        if not self._with_wind:
            return np.zeros_like(measured), np.zeros_like(known)
        mean, std = self._wind_scale
        east, north = turn.vector(measured[:, 1], measured[:, 2])
        wind = np.stack([(measured[:, 0] - np.float32(mean)) / np.float32(std), east, north], axis=1)
        return wind * known[:, None], known

    def tokens(self, fire: int, region: Region, turn: Turn) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return (N, S) and which tokens have domain pixels (N,): means, shares, class shares, class histograms."""
        columns = self._cache.crops[fire].columns
        channels, valid = self._channels(fire)
        valid = turn.map(of_grid(valid, columns, region)).reshape(-1)
        if not self._with_static:
            return np.zeros((len(valid), self.spec.static), np.float32), valid
        bands, bands_valid = self.bands(turn)
        count = len(bands)
        order = [*bands, *(len(self._slopes) + count + band for band in bands_valid)]
        maps = of_grid(channels, columns, region)
        maps = turn.map(np.concatenate([maps[order], maps[len(self._slopes) + 2 * count :]]))
        return maps.reshape(len(maps), -1).T, valid

    def _fire_channels(self, fire: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the static channels of a whole crop and which tokens have domain pixels.

        They are (S + reversed slopes, N), the latter behind the means, as in `terrain`.
        """
        tokens = self._cache.static(fire)
        valid = tokens.domain_share > 0
        mean = (tokens.mean - self._mean) * self._scale * (tokens.share > 0)
        reverse = -mean[:, list(self._slopes)]
        histogram = np.pad(tokens.histogram, ((0, 0), (0, 1)))[:, self._seen]
        parts = [mean, reverse, tokens.share, tokens.class_share, histogram]
        return np.concatenate(parts, axis=1, dtype=np.float32).T * valid, valid

    def _turned_bands(self, turn: Turn) -> tuple[list[int], list[int]]:
        """Return which band of `terrain` each becomes on a turned map, with and without regard to its sign."""
        count = len(self._mean)
        signed, unsigned = list(range(count)), list(range(count))
        if self._slopes:
            signs = np.array([[1, 0], [0, 1]])
            for slope, parts in zip(self._slopes, turn.vector(*signs.T), strict=True):
                source = int(np.flatnonzero(parts)[0])
                unsigned[slope] = self._slopes[source]
                signed[slope] = count + source if parts[source] < 0 else self._slopes[source]
        return signed, unsigned


def _by_number(cache: TokenCache, statistics: Statistics, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return maps of classes with the numbers that the statistics give to their codes, from 1 on."""
    tables = [
        np.array([0, *(1 + seen.codes.index(c) if c in seen.codes else 0 for c in codes)], np.uint8)
        for (_, codes), seen in zip(cache.categorical, statistics.classes, strict=True)
    ]
    return np.stack([table[band] for table, band in zip(tables, classes, strict=True)])


def _columns_of_codes(cache: TokenCache, statistics: Statistics) -> NDArray[np.intp]:
    """Return the column of the class histograms of every code that the statistics know; one behind them where the
    cache lacks it.
    """
    there = [(name, code) for name, codes in cache.categorical for code in codes]
    columns = {class_: column for column, class_ in enumerate(there)}
    return np.array([columns.get((c.name, code), len(there)) for c in statistics.classes for code in c.codes], np.intp)


def fires_in_memory(cache: TokenCache) -> int:
    """Return how many decoded fires a dataset keeps."""
    return max(8, MEMORY // max((crop.height * crop.width for crop in cache.crops), default=1))


def of_grid(values: NDArray[Any], columns: int, region: Region) -> NDArray[Any]:
    """Return a region (..., gy, gx) of tokens (..., N)."""
    gy0, gy1, gx0, gx1 = region
    return values.reshape(*values.shape[:-1], -1, columns)[..., gy0:gy1, gx0:gx1]
