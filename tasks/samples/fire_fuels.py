"""Fuels for sample fires: a map of land cover over terrain, and what each fuel does in a fire.

Codes and surface fuel parameters are those of Scott and Burgan (2005, RMRS-GTR-153). Rates without wind and slope are
of the order of their charts for a dry summer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from tasks.samples.fire_terrain import Floats, Mask, Terrain, adjacent_cells, noise

URBAN, AGRICULTURE, WATER, BARE = 91, 93, 98, 99
NON_BURNABLE = (URBAN, AGRICULTURE, WATER, BARE)
PARCEL_CELLS = 45
"""Mean size of a patch of one land cover."""


class Fuel(NamedTuple):
    """A surface fuel."""

    rate: float
    """Rate of spread without wind and slope, metres per minute."""
    surface: float
    """Surface to volume ratio, 1 per foot (the unit of Rothermel's equations)."""
    packing: float
    """Packing ratio: the share of the fuel bed that is solid."""
    sheltering: float
    """Wind at flame height as a share of the wind 20 feet above the vegetation."""
    load: float
    """Fuel that burns in the front, kg per square metre."""
    timber: bool = False
    """Whether trees with a crown stand above."""


FUELS = {
    102: Fuel(0.30, 1820, 0.0016, 0.36, 0.25),  # GR2 short, sparse dry grass
    104: Fuel(0.36, 1826, 0.0015, 0.40, 0.48),  # GR4 moderate dry grass
    122: Fuel(0.30, 1827, 0.0025, 0.38, 0.45),  # GS2 grass and shrub
    145: Fuel(0.32, 1252, 0.0021, 0.45, 1.10),  # SH5 high, dry shrub
    147: Fuel(0.30, 1233, 0.0034, 0.45, 1.60),  # SH7 very high, dry shrub
    165: Fuel(0.34, 1224, 0.0201, 0.18, 1.80, True),  # TU5 timber over shrub and litter
    183: Fuel(0.14, 1532, 0.0263, 0.15, 0.60, True),  # TL3 moderate conifer litter
    188: Fuel(0.30, 1770, 0.0397, 0.17, 1.00, True),  # TL8 long-needle litter
}


@dataclass(frozen=True, slots=True)
class Cover:
    """What grows or stands on the ground; arrays (rows, columns)."""

    fuel: NDArray[np.int16]
    """Fuel code everywhere."""
    crown_density: Floats
    """Canopy bulk density, kg per cubic metre; 0 without trees."""
    crown_base: Floats
    """Canopy base height in metres; 0 without trees."""


def make_cover(rng: np.random.Generator, terrain: Terrain) -> Cover:
    """Return land cover that follows height, slope and aspect, with rivers, towns, fields and roads."""
    shape = terrain.elevation.shape
    south, east = np.gradient(terrain.elevation)
    steepness = np.hypot(south, east)
    parcel = _parcels(rng, shape)
    land = ~terrain.outside
    height = _by_parcel(terrain.elevation / np.quantile(terrain.elevation[land], 0.99), parcel)
    steep = _by_parcel(np.minimum(steepness / np.quantile(steepness[land], 0.9), 1.5), parcel)
    sunny = _by_parcel(-gaussian_filter(south, 2) / (gaussian_filter(steepness, 2) + 1e-9), parcel)
    fuel = _vegetation(rng, parcel, height, steep, sunny)
    rank = np.sqrt(terrain.area / (land.sum() * 0.02))
    fuel[(rank >= 1) | binary_dilation(rank >= 2)] = WATER
    towns = _towns(rng, terrain, height, steep)
    for road in _roads(terrain, steepness, towns):
        fuel[tuple(road.T)] = URBAN
    for row, column in towns:
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        spread = np.hypot(rows - row, columns - column) / rng.uniform(4, 9)
        fuel[(spread + 0.35 * noise(rng, shape, 1.0) < 1) & (fuel != WATER)] = URBAN
    return Cover(fuel, *_canopy(rng, fuel, parcel))


def _vegetation(
    rng: np.random.Generator, parcel: NDArray[np.int64], height: Floats, steep: Floats, sunny: Floats
) -> NDArray[np.int16]:
    """Let the covers compete for every parcel: each has a place that suits it, and luck."""
    suits = {
        AGRICULTURE: 0.95 - 2.6 * height - 2.0 * steep,
        BARE: -3.1 + 2.6 * height + 0.9 * steep,
        102: -0.15 - 0.5 * height - 0.4 * steep,
        104: -0.35 + 0.3 * height - 0.5 * steep,
        122: 0.15 - 0.3 * height + 0.25 * sunny,
        145: -0.1 + 0.5 * sunny + 0.2 * steep,
        147: -0.25 + 0.45 * sunny + 0.4 * steep - 0.3 * height,
        165: -0.1 - 0.5 * sunny + 0.5 * height,
        183: -0.8 - 0.5 * sunny + 1.2 * height,
        188: -0.3 - 0.35 * sunny + 0.5 * height,
    }
    count = int(parcel.max()) + 1
    scores = [
        score + 0.45 * noise(rng, parcel.shape, 1.2) + 0.3 * rng.standard_normal(count)[parcel]
        for score in suits.values()
    ]
    best = np.argmax([_by_parcel(score, parcel) for score in scores], axis=0)
    return np.array(list(suits), np.int16)[best]


def _parcels(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Number the patches: cells by their nearest of many random points, with crooked borders."""
    points = rng.random((shape[0] * shape[1] // PARCEL_CELLS + 1, 2)) * shape
    rows, columns = np.indices(shape)
    crooked = np.stack([rows + 2.0 * noise(rng, shape, 0.9), columns + 2.0 * noise(rng, shape, 0.9)], axis=-1)
    return np.asarray(cKDTree(points).query(crooked)[1], np.int64)


def _by_parcel(field: Floats, parcel: NDArray[np.int64]) -> Floats:
    """Replace a field by its mean over every parcel."""
    sums = np.bincount(parcel.ravel(), field.ravel())
    return np.asarray((sums / np.maximum(np.bincount(parcel.ravel()), 1))[parcel])


def _towns(rng: np.random.Generator, terrain: Terrain, height: Floats, steep: Floats) -> list[tuple[int, int]]:
    """Choose places on low and flat land near water, well apart."""
    shape = terrain.elevation.shape
    lure = 0.15 * np.log(terrain.area) - 1.5 * height - 1.5 * steep + 0.5 * noise(rng, shape, 1.0)
    lure[terrain.outside] = -np.inf
    apart = 0.2 * min(shape)
    towns: list[tuple[int, int]] = []
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    for _ in range(max(2, shape[0] * shape[1] // 22_000)):
        if not np.isfinite(lure.max()):
            break
        row, column = (int(n) for n in np.unravel_index(np.argmax(lure), shape))
        towns.append((row, column))
        lure[np.hypot(rows - row, columns - column) < apart] = -np.inf
    return towns


def _roads(terrain: Terrain, steepness: Floats, towns: list[tuple[int, int]]) -> list[NDArray[np.int64]]:
    """Return the cells of roads from each town to the nearest earlier one, along easy ground, one cell wide."""
    cost = np.asarray(0.3 + steepness / steepness.mean() + 20.0 * terrain.outside)[::2, ::2]
    number = np.arange(cost.size).reshape(cost.shape)
    flat = cost.ravel()
    first, second, length = adjacent_cells(number)
    graph = coo_matrix((length * (flat[first] + flat[second]), (first, second)), shape=(cost.size,) * 2).tocsr()
    roads = []
    nodes = [int(number[row // 2, column // 2]) for row, column in towns]
    for town in range(1, len(towns)):
        way, before = dijkstra(graph, directed=False, indices=nodes[town], return_predecessors=True)
        node = min(nodes[:town], key=lambda other: way[other])
        path = [node]
        while path[-1] != nodes[town]:
            path.append(int(before[path[-1]]))
        places = np.array([divmod(n, cost.shape[1]) for n in path]) * 2
        middles = [(a + b) // 2 for a, b in pairwise(places)]
        roads.append(np.concatenate([places, np.array(middles).reshape(-1, 2)]))
    return roads


def _canopy(rng: np.random.Generator, fuel: NDArray[np.int16], parcel: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return bulk density and base height of crowns, alike within a stand."""
    trees = np.isin(fuel, [code for code, kind in FUELS.items() if kind.timber])
    stand = rng.standard_normal(int(parcel.max()) + 1)[parcel]
    age = stand + 0.4 * noise(rng, fuel.shape, 0.8)
    density = 0.11 * np.exp(0.4 * age - 0.3 * (fuel == 183))
    base = 2.2 * np.exp(0.5 * age + 0.5 * (fuel == 183) - 0.3 * (fuel == 165))
    return np.where(trees, density, 0.0), np.where(trees, base, 0.0)


def burnable(fuel: NDArray[np.int16]) -> Mask:
    """Return where a fire can burn at all."""
    return np.isin(fuel, list(FUELS))
