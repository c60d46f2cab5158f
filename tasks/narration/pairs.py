"""Windows and captions brought together: by the date of a window's anchor step, and by region."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np
from numpy.typing import NDArray

from configs.weather_lm import JoinConfig
from storage.training_set import TrainingSet
from storage.window_store import WindowStore
from tasks.captions.placed import PlacedCaption
from tasks.captions.region_table import Box
from tasks.captions.regions import overlap

BOTH = "the date lies in two splits"
NO_WINDOW = "no window's anchor step lies on the date"
NO_PLACE = "the region is not known"
NO_VIEW = "no window of the date shows enough of the region"


@dataclass(frozen=True, slots=True)
class Pair:
    """A window and what is said about it."""

    window: int
    """Position within the split."""
    date: date
    region: str | None
    box: Box | None
    texts: tuple[str, ...]
    """Captions of the same date and region."""


@dataclass(frozen=True)
class Pairs:
    """The pairs of one split, by date, window and region, and why captions have none."""

    split: str
    pairs: list[Pair]
    unused: dict[str, int] = field(default_factory=dict)
    """Reason -> captions."""

    def __len__(self) -> int:
        return len(self.pairs)


class Windows:
    """Where and when the usable windows of a training set lie."""

    def __init__(self, store: WindowStore, prepared: TrainingSet) -> None:
        self._store, self._prepared = store, prepared
        self._days = store.time.astype("datetime64[D]")
        self._by_day: dict[str, dict[date, list[tuple[int, Box, float]]]] = {}

    def of(self, split: str) -> dict[date, list[tuple[int, Box, float]]]:
        """Return date -> windows whose anchor lies on it: position, box, and the share of steps on that date."""
        if split not in self._by_day:
            found: dict[date, list[tuple[int, Box, float]]] = defaultdict(list)
            for index in range(self._prepared.length(split)):
                t, y, x = self._prepared.origin(split, index)
                steps, _, _ = self._prepared.grid.shape
                day = self._days[t + self._prepared.grid.anchor_step]
                share = float((self._days[t : t + steps] == day).mean())
                found[day.item()].append((index, self.box(y, x), share))
            self._by_day[split] = dict(found)
        return self._by_day[split]

    def box(self, y: int, x: int) -> Box:
        """Return the edges of the window at a row and column: half a cell beyond its outermost grid points."""
        _, height, width = self._prepared.grid.shape
        latitude, longitude = self._store.latitude, self._store.longitude
        rows = latitude[y : y + height]
        half_row, half_column = _half_step(latitude), _half_step(longitude)
        west = longitude[x] - half_column
        east = longitude[(x + width - 1) % len(longitude)] + half_column
        north, south = min(90.0, rows.max() + half_row), max(-90.0, rows.min() - half_row)
        return float(north), _wrapped(west), float(south), _wrapped(east)

    def shared_days(self, split: str) -> set[date]:
        """Return the days on which windows of this split and of another one are anchored."""
        others = [name for name in self._prepared.splits if name != split]
        return {day for day in self.of(split) for other in others if day in self.of(other)}


def _half_step(axis: NDArray[np.float64]) -> float:
    return float(abs(axis[1] - axis[0])) / 2 if len(axis) > 1 else 0.0


def _wrapped(longitude: float) -> float:
    return float((longitude + 180) % 360 - 180)


def join(windows: Windows, captions: Sequence[PlacedCaption], config: JoinConfig, split: str) -> Pairs:
    """Return the pairs of a split; captions whose date other splits use too belong to none.

    Raises:
        ValueError: `drop_if_no_caption` is false, and a window of the split has no caption.
    """
    unused: dict[str, int] = defaultdict(int)
    texts: dict[tuple[date, str | None, Box | None], list[str]] = defaultdict(list)
    for caption in captions:
        texts[caption.date, caption.region, caption.box].append(caption.text)
    by_day, shared = windows.of(split), windows.shared_days(split)
    pairs = []
    for (day, region, box), said in texts.items():
        chosen: list[int] = []
        if day not in by_day:
            reason = NO_WINDOW
        elif day in shared:
            reason = BOTH
        elif box is None and config.unplaced == "drop":
            reason = NO_PLACE
        else:
            reason = NO_VIEW
            chosen = [index for index, view, share in by_day[day] if share >= config.min_day_share
                      and shows(view, box, config)]  # fmt: skip
        if not chosen:
            unused[reason] += len(said)
        pairs += [Pair(index, day, region, box, tuple(said)) for index in chosen]
    pairs.sort(key=lambda pair: (pair.date, pair.window, pair.region or ""))
    if not config.drop_if_no_caption:
        _refuse_silent_windows(by_day, pairs, split)
    return Pairs(split, pairs, dict(unused))


def shows(view: Box, box: Box | None, config: JoinConfig) -> bool:
    """Say whether a window shows enough of a region, or lies in it; every window shows what has no place."""
    if box is None:
        return True
    of_window, of_region = overlap(box, view)
    return of_region >= config.min_region_share or of_window >= config.min_window_share


def _refuse_silent_windows(by_day: dict[date, list[tuple[int, Box, float]]], pairs: Sequence[Pair], split: str) -> None:
    told = {pair.window for pair in pairs}
    silent = [day for day, found in by_day.items() for index, _, _ in found if index not in told]
    if silent:
        raise ValueError(
            f"{len(silent)} windows of {split} have no caption, the first on {min(silent)}; set "
            "captions.join.drop_if_no_caption to true to train on the others, or add captions"
        )


def days_text(days: Iterator[date] | Sequence[date], most: int = 12) -> str:
    """Return dates for a message: the first and the last ones where there are many."""
    listed = [f"{day}" for day in sorted(days)]
    if len(listed) <= most:
        return ", ".join(listed) or "none"
    return f"{', '.join(listed[: most // 2])}, ..., {', '.join(listed[-most // 2 :])} ({len(listed)} in all)"
