"""What fires have in common: pixels and weather. The split is made with it, and checked with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from storage.fire_split import PARTS, FireEntry, FireSplit
from storage.token_cache import TokenCache

RUN = 3
"""So many weather rows in a row are taken for a piece of the same series."""
SHOWN = 5

Box = tuple[int, int, int, int]
"""Rows y0 to y1 and columns x0 to x1 of the landscape, half-open."""


def crop_box(cache: TokenCache, fire: int) -> Box:
    """Return where a fire's crop lies."""
    crop = cache.crops[fire]
    return crop.y0, crop.y0 + crop.height, crop.x0, crop.x0 + crop.width


def region_box(cache: TokenCache, entry: FireEntry) -> Box:
    """Return where a fire's region lies, inside its crop."""
    y0, y1, x0, x1 = crop_box(cache, entry.fire)
    gy0, gy1, gx0, gx1 = (cache.patch * g for g in entry.region)
    return y0 + gy0, min(y0 + gy1, y1), x0 + gx0, min(x0 + gx1, x1)


def overlaps(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pixels that boxes (m, 4) and (n, 4) share, (m, n)."""
    high = np.minimum(a[:, None, 1], b[None, :, 1]) - np.maximum(a[:, None, 0], b[None, :, 0])
    wide = np.minimum(a[:, None, 3], b[None, :, 3]) - np.maximum(a[:, None, 2], b[None, :, 2])
    return np.maximum(high, 0) * np.maximum(wide, 0)


def areas(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pixels of boxes (n, 4)."""
    return (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])


def burnt_map(cache: TokenCache, fires: Sequence[int]) -> NDArray[np.bool_]:
    """Return the pixels of the landscape that any of these fires burns, in frames or targets."""
    burnt = np.zeros(cache.array("landscape/classes").shape[1:], bool)
    for fire in fires:
        burnt[cache.crops[fire].pixels] |= cache.frames(fire)[-1] | cache.target(fire, cache.steps[fire] - 1)
    return burnt


def crop_map(cache: TokenCache, fires: Sequence[int]) -> NDArray[np.bool_]:
    """Return the pixels of the landscape in any of these fires' crops."""
    covered = np.zeros(cache.array("landscape/classes").shape[1:], bool)
    for fire in fires:
        covered[cache.crops[fire].pixels] = True
    return covered


def weather_conflicts(cache: TokenCache) -> dict[int, set[int]]:
    """Return, for every distinct weather, the others with which it shares a run of rows.

    A run is three consecutive rows of equal wind, or the whole of a weather that has fewer.
    """
    rows = weather_rows(cache)
    where: dict[tuple[bytes, ...], set[int]] = defaultdict(set)
    for number, series in rows.items():
        for length in range(1, RUN + 1):
            for first in range(len(series) - length + 1):
                where[series[first : first + length]].add(number)
    conflicts: dict[int, set[int]] = {number: set() for number in rows}
    for number, series in rows.items():
        length = min(RUN, len(series))
        for first in range(len(series) - length + 1 if length else 0):
            for other in where[series[first : first + length]] - {number}:
                conflicts[number].add(other)
                conflicts[other].add(number)
    return conflicts


def weather_rows(cache: TokenCache) -> dict[int, tuple[bytes, ...]]:
    """Return the rows of every distinct weather, as bytes to compare."""
    rows: dict[int, tuple[bytes, ...]] = {}
    for fire, number in enumerate(cache.array("seq/weather").tolist()):
        if number not in rows:
            wind, valid = cache.wind(fire)
            last = int(np.flatnonzero(valid)[-1]) + 1 if valid.any() else 0
            rows[number] = tuple(row.tobytes() + known.tobytes() for row, known in zip(wind, valid, strict=True))[:last]
    return rows


def find_leaks(cache: TokenCache, split: FireSplit) -> list[str]:
    """Return what fires of different parts have in common against the split's rules, one sentence per pair."""
    leaks = []
    conflicts = weather_conflicts(cache) if split.rules.weather == "rows" else {}
    weather = cache.array("seq/weather").tolist()
    for earlier, later in combinations(PARTS, 2):
        ours, theirs = split.part(earlier), split.part(later)
        if not ours or not theirs:
            continue
        for i, j in np.argwhere(_pixels_shared(cache, split, ours, theirs)).tolist():
            leaks.append(f"{ours[i].name} ({earlier}) and {theirs[j].name} ({later}) share pixels")
        if split.rules.weather == "none":
            continue
        for a in ours:
            for b in theirs:
                first, second = weather[a.fire], weather[b.fire]
                if first == second or second in conflicts.get(first, ()):
                    leaks.append(f"{a.name} ({earlier}) and {b.name} ({later}) share weather rows")
    return leaks


def _pixels_shared(
    cache: TokenCache, split: FireSplit, ours: Sequence[FireEntry], theirs: Sequence[FireEntry]
) -> NDArray[np.bool_]:
    """Return which pairs share pixels against the rules, (ours, theirs)."""
    if split.rules.pixels == "none":
        return np.zeros((len(ours), len(theirs)), bool)
    if split.rules.pixels == "burnt":
        burnt = [burnt_map(cache, [b.fire]) for b in theirs]
        return np.array([[bool(mask[cache.crops[a.fire].pixels].any()) for mask in burnt] for a in ours])
    if split.rules.pixels == "cut":
        first, second = (np.array([region_box(cache, e) for e in part], np.int64) for part in (ours, theirs))
        return overlaps(first, second) > 0
    first, second = (np.array([crop_box(cache, e.fire) for e in part], np.int64) for part in (ours, theirs))
    most = split.rules.max_overlap if split.rules.pixels == "overlap" else 0.0
    return overlaps(first, second) > most * np.minimum(areas(first)[:, None], areas(second)[None, :])


def check_split(cache: TokenCache, split: FireSplit) -> None:
    """Raise a `ValueError` when a split does not fit its cache or fires of different parts share what they must not."""
    if [(e.fire, e.name) for e in split.fires] != list(enumerate(cache.names)):
        raise ValueError("the split was made for another cache: its fires are not those of the cache; make it anew")
    for entry in split.fires:
        gy0, gy1, gx0, gx1 = entry.region
        crop = cache.crops[entry.fire]
        if entry.part and not (0 <= gy0 < gy1 <= crop.rows and 0 <= gx0 < gx1 <= crop.columns):
            raise ValueError(f"the split's region of {entry.name} is not inside its token grid; make it anew")
    parts: dict[int, str] = {}
    for entry in split.fires:
        if entry.part and parts.setdefault(entry.group, entry.part) != entry.part:
            raise ValueError(f"the split puts group {entry.group} into two parts, {entry.name} is one of its fires")
    if leaks := find_leaks(cache, split):
        more = f" and {len(leaks) - SHOWN} more" if len(leaks) > SHOWN else ""
        raise ValueError(
            f"the split leaks: {'; '.join(leaks[:SHOWN])}{more}; move these fires or relax splits.keep_apart or "
            "splits.weather"
        )
