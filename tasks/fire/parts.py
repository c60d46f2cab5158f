"""Ways to divide fires into training, validation and test: by blocks of land, by groups, or by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.fire_data import FireSplits
from storage.fire_split import PARTS, FireEntry, FireSplit, Part, Rules
from storage.sampling import KeyedPermutation
from storage.token_cache import TokenCache
from tasks.fire.leaks import areas, burnt_map, crop_box, crop_map, overlaps, weather_conflicts

TRAIN, VALIDATION, TEST = PART_NUMBERS = range(3)
COST_TO_OTHERS = 0.25
"""What a fire that other parts lose counts, against one that is kept; from 0.05 to 1 splits are much the same."""


@dataclass
class Draft:
    """Parts while they are made: per fire its part, or why it is left out."""

    part: list[int]
    reason: list[str]
    region: list[tuple[int, int, int, int]]

    def kept(self, part: int) -> list[int]:
        """Return the fires of a part that are not left out."""
        return [fire for fire, p in enumerate(self.part) if p == part and not self.reason[fire]]

    def leave_out(self, fire: int, reason: str) -> None:
        """Leave a fire out; the first reason counts."""
        self.reason[fire] = self.reason[fire] or reason


def divide(cache: TokenCache, splits: FireSplits) -> FireSplit:
    """Put every fire into a part or leave it out, by the configured method; `ValueError` where a part stays empty."""
    whole = [(0, crop.rows, 0, crop.columns) for crop in cache.crops]
    draft = Draft([TRAIN] * len(cache), [""] * len(cache), whole)
    groups = list(range(len(cache)))
    if splits.method == "blocks":
        _blocks(cache, splits, draft)
        if splits.weather != "none":
            _part_weathers(cache, splits, draft)
            groups = cache.array("seq/weather").tolist()
    elif splits.method == "groups":
        groups = fire_groups(cache, splits)
        _assign_groups(groups, splits, draft)
    else:
        _lists(cache, splits, draft)
    entries = tuple(
        FireEntry(
            fire=fire,
            name=cache.names[fire],
            part=None if draft.reason[fire] else PARTS[draft.part[fire]],
            group=groups[fire],
            reason=draft.reason[fire],
            region=draft.region[fire],
        )
        for fire in range(len(cache))
    )
    pixels: Any = "overlap" if splits.method == "groups" else splits.keep_apart
    split = FireSplit(rules=Rules(pixels=pixels, max_overlap=splits.max_overlap, weather=splits.weather), fires=entries)
    _check_sizes(split, splits)
    return split


def _shares(splits: FireSplits) -> tuple[float, float, float]:
    return 1 - splits.validation_share - splits.test_share, splits.validation_share, splits.test_share


def ignitions(cache: TokenCache) -> NDArray[np.float64]:
    """Return row and column in the landscape of the centre of every fire's first burnt pixels, (S, 2)."""
    places = []
    for fire, crop in enumerate(cache.crops):
        arrival = cache.arrival(fire)
        rows, columns = np.nonzero(arrival == arrival.min())
        places.append((crop.y0 + rows.mean(), crop.x0 + columns.mean()))
    return np.array(places)


def _blocks(cache: TokenCache, splits: FireSplits, draft: Draft) -> None:
    """Cut the land into three bands by where fires begin, and take out or cut what reaches over a border."""
    axis = 1 if splits.axis == "columns" else 0
    places = ignitions(cache)[:, axis]
    borders = [int(np.ceil(place)) for place in np.quantile(places, np.cumsum(_shares(splits))[:2])]
    draft.part[:] = np.digitize(places, borders).tolist()
    if splits.keep_apart == "cut":
        ends = [0, *borders, max(cache.array("landscape/classes").shape)]
        for fire, part in enumerate(draft.part):
            _cut(cache, draft, fire, axis, ends[part], ends[part + 1])
    elif splits.keep_apart != "none":
        _take_out_overlaps(cache, splits, draft)


def _cut(cache: TokenCache, draft: Draft, fire: int, axis: int, low: int, high: int) -> None:
    """Keep the tokens that lie wholly between two borders; leave the fire out when it does not begin there."""
    crop, patch = cache.crops[fire], cache.patch
    start, size, count = (
        (crop.x0, crop.width, crop.columns) if axis else (crop.y0, crop.height, crop.rows)
    )  # fmt: skip
    first = -(-max(0, low - start) // patch)
    last = count if start + size <= high else (high - start) // patch
    region = (0, crop.rows, first, last) if axis else (first, last, 0, crop.columns)
    arrival = cache.arrival(fire)
    begins = np.nonzero(arrival == arrival.min())[axis]
    if first >= last or begins.min() < first * patch or begins.max() >= last * patch:
        draft.leave_out(fire, "it begins too near to the border of its part")
    else:
        draft.region[fire] = region


def _take_out_overlaps(cache: TokenCache, splits: FireSplits, draft: Draft) -> None:
    """Leave out fires of earlier parts whose crops hold pixels of later parts: of their crops, or burnt ones."""
    pixels_of = crop_map if splits.keep_apart == "crop" else burnt_map
    taken = np.zeros(cache.array("landscape/classes").shape[1:], bool)
    for part in (TEST, VALIDATION, TRAIN):
        for fire in draft.kept(part):
            if taken[cache.crops[fire].pixels].any():
                what = "overlaps crops" if splits.keep_apart == "crop" else "holds pixels that burn in fires"
                draft.leave_out(fire, f"its crop {what} of a later part")
        taken |= pixels_of(cache, draft.kept(part))


def _part_weathers(cache: TokenCache, splits: FireSplits, draft: Draft) -> None:
    """Give every weather to one part and leave out its fires elsewhere.

    The part that is furthest behind its share chooses next: the weather that keeps most of its fires and costs other
    parts least. With `rows`, weathers that share rows with it can then go to the same part only.
    """
    weather = cache.array("seq/weather").tolist()
    conflicts = weather_conflicts(cache) if splits.weather == "rows" else {}
    shares = _shares(splits)
    fires: dict[int, list[int]] = {number: [0, 0, 0] for number in weather}
    for part in PART_NUMBERS:
        for fire in draft.kept(part):
            fires[weather[fire]][part] += 1
    open_to = {number: {part for part in PART_NUMBERS if counts[part]} for number, counts in fires.items()}
    home: dict[int, int] = {}
    kept = [0, 0, 0]

    def gain(number: int, part: int) -> float:
        lost = sum(fires[number][other] for other in open_to[number] - {part})
        for rival in conflicts.get(number, ()):
            lost += sum(fires[rival][other] for other in open_to[rival] - {part})
        return fires[number][part] - COST_TO_OTHERS * lost

    while any(open_to.values()):
        waiting = {part for parts in open_to.values() for part in parts}
        part = min(waiting, key=lambda p: (kept[p] / max(shares[p], 1e-9), p))
        chosen = max((n for n, parts in open_to.items() if part in parts), key=lambda n: (gain(n, part), -n))
        home[chosen] = part
        kept[part] += fires[chosen][part]
        open_to[chosen] = set()
        for rival in conflicts.get(chosen, ()):
            open_to[rival] &= {part}
    words = "has the weather" if splits.weather == "file" else "shares weather rows"
    for part in PART_NUMBERS:
        for fire in draft.kept(part):
            if home.get(weather[fire]) != part:
                draft.leave_out(fire, f"it {words} of fires in another part")


def fire_groups(cache: TokenCache, splits: FireSplits) -> list[int]:
    """Return the leakage group of every fire: linked by weather, or by crops that overlap by more than allowed."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    boxes = np.array([crop_box(cache, fire) for fire in range(len(cache))], np.int64)
    size = areas(boxes)
    linked = overlaps(boxes, boxes) > splits.max_overlap * np.minimum(size[:, None], size[None, :])
    weather = cache.array("seq/weather")
    if splits.weather != "none":
        linked |= weather[:, None] == weather[None, :]
    if splits.weather == "rows":
        for number, others in weather_conflicts(cache).items():
            linked |= (weather == number)[:, None] & np.isin(weather, list(others))[None, :]
    rows, columns = np.nonzero(linked)
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=linked.shape)
    groups: list[int] = connected_components(graph, directed=False)[1].tolist()
    return groups


def _assign_groups(groups: Sequence[int], splits: FireSplits, draft: Draft) -> None:
    """Give whole groups, large ones first, to the part that lacks most of its share."""
    sizes = np.bincount(groups)
    shares = _shares(splits)
    lacking = [share * len(groups) for share in shares]
    if sizes.max() > max(lacking) + 0.1 * len(groups):
        raise ValueError(
            f"the largest group of fires that share crops or weather holds {sizes.max() / len(groups):.0%} of all "
            f"{len(groups)} fires, so that whole groups give no split of {shares[0]:.0%}/{shares[1]:.0%}/"
            f"{shares[2]:.0%}; set splits.method=blocks, or raise splits.max_overlap"
        )
    shuffled = KeyedPermutation(len(sizes), splits.seed, 0)
    home = {}
    for group in sorted((shuffled[i] for i in range(len(sizes))), key=lambda g: -sizes[g]):
        part = int(np.argmax(lacking))
        home[group] = part
        lacking[part] -= sizes[group]
    draft.part[:] = [home[group] for group in groups]


def _lists(cache: TokenCache, splits: FireSplits, draft: Draft) -> None:
    named = {"train": splits.training, "validation": splits.validation, "test": splits.test}
    chosen: dict[int, int] = {}
    for part, name in enumerate(PARTS):
        chosen |= {cache.find(str(number)): part for number in named[name]}
    for fire in range(len(cache)):
        draft.part[fire] = chosen.get(fire, TRAIN)
        if fire not in chosen:
            draft.leave_out(fire, "it is in no list")


def _check_sizes(split: FireSplit, splits: FireSplits) -> None:
    wanted: dict[Part, bool] = {
        "train": True,
        "validation": splits.validation_share > 0,
        "test": splits.test_share > 0,
    }
    if splits.method == "lists":
        wanted |= {"validation": bool(splits.validation), "test": bool(splits.test)}
    counts = {part: len(split.part(part)) for part in PARTS}
    if empty := [part for part in PARTS if wanted[part] and not counts[part]]:
        reasons = sorted({entry.reason for entry in split.fires if entry.reason})
        raise ValueError(
            f"splits: no fire is left for {' and '.join(empty)} ({', '.join(f'{n} {p}' for p, n in counts.items())}; "
            f"left out because: {'; '.join(reasons) or 'there are too few fires'}); relax splits.keep_apart or "
            "splits.weather, or change the shares"
        )
