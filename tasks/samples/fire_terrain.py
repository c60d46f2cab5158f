"""Terrain for sample fires: land that rivers have carved, from a coast up to mountains.

Elevation follows the stream power law of erosion, dz/dt = uplift - k area^m slope, solved implicitly along the drainage
tree (Braun and Willett 2013, Geomorphology 180), with hillslope diffusion, from coarse to fine grids. Drainage is the
minimum spanning tree of the passes between cells, so every cell finds its way to the sea, also out of a pit.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

AREA_EXPONENT = 0.45
RELIEF = 0.05
"""Height of the mountains as a share of the side of the landscape."""
REFINEMENTS = ((16, 60), (8, 25), (4, 12))
"""Cells per cell of a coarser grid, and steps of erosion there."""


@dataclass(frozen=True, slots=True)
class Terrain:
    """Ground before anything grows on it; all arrays are (rows, columns), row 0 in the north."""

    elevation: Floats
    """Metres above the sea, smooth and without holes."""
    area: Floats
    """Cells that drain through a cell, itself included."""
    outside: Mask
    """Sea, or beyond the map."""


def make_terrain(rng: np.random.Generator, shape: tuple[int, int], cell_metres: float, outside_share: float) -> Terrain:
    """Return eroded terrain with the sea on one side."""
    score = _distance_inland(rng, shape)
    level = np.quantile(score, max(outside_share, 0.02))
    uplift = 0.35 + np.clip(score - level, 0, None) + 0.25 * np.clip(noise(rng, shape, 1.6), -1, 2)
    elevation = 0.02 * noise(rng, shape, 1.4)
    for step, count in REFINEMENTS:
        coarse = tuple(max(4, -(-n // step)) for n in shape)
        ground = resample(elevation, coarse)
        sea = resample(score, coarse) <= level
        for _ in range(count):
            ground = _erode(ground, resample(uplift, coarse), sea, step)
        elevation = resample(ground, shape)
    land = score > level
    relief = RELIEF * cell_metres * float(np.sqrt(shape[0] * shape[1]))
    elevation *= relief / np.quantile(elevation[land], 0.995)
    rough = noise(rng, shape, 1.15) * relief * 0.012
    elevation = gaussian_filter(elevation, 0.8) + rough * np.clip(elevation / relief, 0.05, 1)
    sea = ~land
    elevation = np.where(sea, 0.0, np.maximum(elevation, 0.5))
    order, receiver = _drainage(elevation, sea)
    outside = sea if outside_share > 0 else np.zeros(shape, bool)
    return Terrain(elevation, _drained_area(order, receiver, shape), outside)


def noise(rng: np.random.Generator, shape: tuple[int, int], exponent: float) -> Floats:
    """Return fractal noise of mean 0 and variance 1 whose amplitude falls as wavenumber ** -exponent."""
    padded = tuple(n + n // 2 for n in shape)  # wider than wanted, so that opposite edges differ
    rows, columns = np.fft.fftfreq(padded[0])[:, None], np.fft.rfftfreq(padded[1])[None]
    wavenumber = np.hypot(rows, columns)
    wavenumber[0, 0] = np.inf
    # the spectrum begins at the size of the landscape; longer waves would only tilt it
    amplitude = np.maximum(wavenumber, 1 / max(shape)) ** -(exponent + 0.5)
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(padded)) * amplitude, s=padded)
    field = field[: shape[0], : shape[1]]
    return np.asarray((field - field.mean()) / field.std(), np.float64)


def resample(field: Floats, shape: tuple[int, ...]) -> Floats:
    """Return a field on a finer or coarser grid of the same extent."""
    factors = [new / old for new, old in zip(shape, field.shape, strict=True)]
    if min(factors) < 1:
        field = gaussian_filter(field, [max(0.0, 0.5 / f - 0.5) for f in factors])
    return np.asarray(zoom(field, factors, order=3, mode="nearest", grid_mode=True), np.float64)


def adjacent_cells(number: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return the numbers of every pair of adjacent cells, diagonal ones included, and their distance."""
    pairs = [(number[:, :-1], number[:, 1:], 1.0), (number[:-1], number[1:], 1.0)]
    pairs += [(number[:-1, :-1], number[1:, 1:], 2**0.5), (number[:-1, 1:], number[1:, :-1], 2**0.5)]
    first = np.concatenate([one.ravel() for one, _, _ in pairs])
    second = np.concatenate([other.ravel() for _, other, _ in pairs])
    return first, second, np.concatenate([np.full(one.size, length) for one, _, length in pairs])


def _distance_inland(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Rise from the sea's side to the opposite one by about 1, with bays and headlands."""
    bearing = rng.uniform(0, 2 * np.pi)
    rows = np.linspace(-0.5, 0.5, shape[0])[:, None]
    columns = np.linspace(-0.5, 0.5, shape[1])[None]
    return np.asarray(np.cos(bearing) * columns + np.sin(bearing) * rows + 0.13 * noise(rng, shape, 1.5))


def _erode(ground: Floats, uplift: Floats, sea: Mask, step: int) -> Floats:
    """Advance by one step of uplift, of erosion along the drainage tree, and of diffusion."""
    ground = np.where(sea, 0.0, ground + 0.02 * uplift)
    order, receiver = _drainage(ground, sea)
    area = _drained_area(order, receiver, ground.shape).ravel()
    rate = 0.6 * area**AREA_EXPONENT / np.sqrt(step)
    flat, wet = ground.ravel().copy(), sea.ravel()
    for cells in order[1:]:  # level by level upstream, where a cell's receiver is already new
        lower = flat[receiver[cells]]
        flat[cells] = np.where(wet[cells], flat[cells], (flat[cells] + rate[cells] * lower) / (1 + rate[cells]))
    return np.asarray(gaussian_filter(flat.reshape(ground.shape), 0.35))


def _drainage(ground: Floats, outlets: Mask) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Return cells by their number of steps from an outlet, and each cell's receiver (outlets receive themselves)."""
    rows, columns = ground.shape
    number = np.arange(ground.size).reshape(ground.shape)
    first, second, length = adjacent_cells(number)
    height = (ground.ravel() - ground.min()) / (np.ptp(ground) + 1e-12)
    drop = np.abs(height[first] - height[second]) / length
    weight = 2 + np.maximum(height[first], height[second]) - 1e-3 * drop  # the lowest pass; the steepest of equal ones
    source = rows * columns
    exits = number[outlets]
    tree = minimum_spanning_tree(
        coo_matrix(
            (np.r_[weight, np.ones(exits.size)], (np.r_[first, exits], np.r_[second, np.full(exits.size, source)])),
            shape=(source + 1, source + 1),
        ).tocsr()
    )
    order, parent = breadth_first_order(tree, source, directed=False)
    depth = [0] * (source + 1)
    for cell, above in zip(order[1:].tolist(), parent[order[1:]].tolist(), strict=True):
        depth[cell] = depth[above] + 1
    depths = np.array(depth)[order]
    bounds = np.searchsorted(depths, np.arange(1, depths[-1] + 2))
    receiver = parent[:source].astype(np.int64)
    receiver[exits] = exits
    return [order[a:b].astype(np.int64) for a, b in pairwise(bounds)], receiver


def _drained_area(order: list[NDArray[np.int64]], receiver: NDArray[np.int64], shape: tuple[int, ...]) -> Floats:
    area = np.ones(receiver.size)
    for cells in reversed(order[1:]):
        np.add.at(area, receiver[cells], area[cells])
    return area.reshape(shape)
