"""Tell the weather of a date: which windows show it, what a narrator writes about them, and how true that is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Literal

from configs.weather_lm import JoinConfig, NarrationEvaluation
from storage.files import write_atomic
from storage.window_dataset import WindowDataset
from tasks.captions.checks import value_accuracy
from tasks.captions.placed import PlacedCaption, load_placed
from tasks.captions.region_table import Box
from tasks.captions.regions import Gazetteer, overlap
from tasks.figures import save_figure
from tasks.narration.dataset import NarrationPairs, PairFolders
from tasks.narration.evaluation import write_texts
from tasks.narration.pairs import Pair, Pairs, Windows, days_text, shows
from tasks.narration.pictures import draw_told
from tasks.narration.released import NarratorRelease
from tasks.narration.truth import FieldTruth

Anchor = Literal["first", "middle", "last"]


@dataclass(frozen=True)
class Narrative:
    """What is written about a region on a date."""

    date: date
    region: str | None
    split: str
    """The split of the window: `train` has been seen in training."""
    text: str
    captions: tuple[str, ...]
    """What people say, where there are captions."""
    values_checked: int
    values_right: int


@dataclass(frozen=True)
class Request:
    """What is to be told."""

    day: date
    region: str | None = None
    """Only this region; every region that captions name and windows show when absent."""
    anchor: Anchor | None = None
    """Which step's date names a window; as in training when absent."""
    most: int = 6


def narrate(
    release: NarratorRelease,
    folders: PairFolders,
    join: JoinConfig,
    request: Request,
    writing: NarrationEvaluation,
    output: Path,
) -> list[Narrative]:
    """Write a text for each window and region of a date, with maps and a JSON file in `output`.

    Raises:
        ValueError: no window is anchored on the date, or none shows the region; the message says what there is.
    """
    captions = load_placed(folders.captions)
    narratives: list[Narrative] = []
    folders = replace(folders, statistics=release.mae.statistics)
    for split, pairs in _chosen(release, folders, captions, join, request):
        told = write_texts(release, pairs, [(k, pair.window) for k, pair in enumerate(pairs.pairs)], writing)
        truth = FieldTruth(pairs.windows.store)
        rows = []
        for pair, found in zip(pairs.pairs, told, strict=True):
            counts = value_accuracy(found.text, truth.day(pair.date, pair.box))
            checked, right = sum(counts.checked.values()), sum(counts.within.values())
            narratives.append(Narrative(pair.date, pair.region, split, found.text, pair.texts, checked, right))
            rows.append((pair.window, pair.box, found.text, pair.texts))
        save_figure(draw_told(pairs.windows, rows), output / f"{request.day}_{split}.png")
    text = json.dumps([{**vars(n), "date": f"{n.date}"} for n in narratives], indent=1, ensure_ascii=False)
    write_atomic(output / f"{request.day}.json", text + "\n")
    return narratives


def _chosen(
    release: NarratorRelease,
    folders: PairFolders,
    captions: Sequence[PlacedCaption],
    join: JoinConfig,
    request: Request,
) -> list[tuple[str, NarrationPairs]]:
    """Return, by split, the pairs of the date that are to be told about."""
    places = _places(captions, request.region)
    found: list[tuple[str, NarrationPairs]] = []
    days: set[date] = set()
    room = request.most
    for split in ("test", "validation", "train"):
        windows = folders.windows(split)
        release.mae.check(windows)
        by_day = _anchored(windows, request.anchor).of(split)
        days |= by_day.keys()
        views = by_day.get(request.day, [])
        pairs = _best_views(views, places, captions, join, request.day)[:room]
        room -= len(pairs)
        if pairs:
            samples = Pairs(split, pairs)
            longest = release.recipe.max_caption_tokens
            found.append((split, NarrationPairs(windows, samples, release.tokens, release.language.prompt, longest)))
    if not found:
        _refuse(request, days, captions)
    return found


def _places(captions: Sequence[PlacedCaption], region: str | None) -> dict[str | None, Box | None]:
    known: dict[str | None, Box | None] = {c.region: c.box for c in captions if c.region and c.box}
    if region is None:
        return known or {None: None}
    for name, box in known.items():
        if name and name.casefold() == region.casefold():
            return {name: box}
    box = Gazetteer.world().find(region)
    if box is None:
        names = ", ".join(sorted(str(name) for name in known)[:20])
        raise ValueError(f"--region {region!r} is no place that the table or the captions know; they know {names}")
    return {region: box}


def _anchored(windows: WindowDataset, anchor: Anchor | None) -> Windows:
    prepared = windows.training_set
    if anchor is not None:
        steps = prepared.grid.time.length
        step = {"first": 0, "middle": steps // 2, "last": steps - 1}[anchor]
        prepared = prepared.model_copy(update={"grid": prepared.grid.model_copy(update={"anchor_step": step})})
    return Windows(windows.store, prepared)


def _best_views(
    views: Sequence[tuple[int, Box, float]],
    places: Mapping[str | None, Box | None],
    captions: Sequence[PlacedCaption],
    join: JoinConfig,
    day: date,
) -> list[Pair]:
    """Return a pair for every place, with the window that shows most of the day there, and most of the place."""
    pairs = []
    for region, box in places.items():
        fitting = [(share, overlap(box, view)[1] if box else 1.0, -index) for index, view, share in views
                   if share >= join.min_day_share and shows(view, box, join)]  # fmt: skip
        if fitting:
            texts = tuple(c.text for c in captions if c.date == day and c.region == region)
            pairs.append(Pair(-max(fitting)[2], day, region, box, texts))
    return pairs


def _refuse(request: Request, days: set[date], captions: Sequence[PlacedCaption]) -> None:
    if request.day not in days:
        raise ValueError(
            f"No windows are anchored on {request.day}; there are windows of {days_text(list(days))}, and captions of "
            f"{days_text(list({c.date for c in captions}))}; choose one of these dates"
        )
    raise ValueError(
        f"no window of {request.day} shows enough of {request.region or 'any known region'} for as much of the day as "
        "captions.join asks for; choose another region or another --anchor"
    )
