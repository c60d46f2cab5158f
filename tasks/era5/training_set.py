"""From a window store to a training set: splits in time, usable windows, statistics of the training period."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from configs.weather import Period, SplitConfig, WindowConfig
from storage.moments import COUNT, M2, MAXIMUM, MEAN, MINIMUM, merge_moments
from storage.training_set import Block, ChannelStatistics, TrainingSet
from storage.usable import Judgement, judge_windows
from storage.window_store import WindowStore
from storage.windows import Bits, WindowGrid, time_range

SPLITS = ("train", "validation", "test")
BATCH_STEPS = 2048  # steps whose moments are read and merged at once

Steps = tuple[int, int]
"""A range of time steps, the second one excluded."""


def build_training_set(store: WindowStore, windows: WindowConfig, splits: SplitConfig) -> TrainingSet:
    """Place windows, divide time into splits, judge every window and take statistics of the training period.

    `ValueError` when no window fits, the splits are impossible, or nothing usable is left to train on.
    """
    plane, begin = store.geometry.plane, first_step(store)
    grid = WindowGrid.of(windows, store.time, plane, is_global=store.geometry.is_global, begin=begin)
    periods = split_periods(splits, store.time, (grid.time.first, grid.time.stop), windows.time)
    origins = [grid.time.within(*steps) for found in periods.values() for steps in found]
    judgement = judge_windows(store, grid, windows.max_nan_share, origins)
    blocks = {
        name: tuple(_block(steps, store.time, grid, judgement) for steps in found) for name, found in periods.items()
    }
    _check_training_windows(blocks["train"], windows)
    statistics = channel_statistics(store, periods["train"])
    inside = sum(b.stop_window - b.first_window for found in blocks.values() for b in found)
    return TrainingSet(
        steps=len(store.time),
        grid=grid,
        statistics=statistics,
        splits=blocks,
        outside=len(grid) - inside,
        warnings=tuple(_warnings(statistics, blocks)),
        usable=Bits.of(judgement.packed, len(grid)),
    )


def first_step(store: WindowStore) -> int:
    """Return the first step with data; a store begins with whole shards, and what pads the first one is no gap."""
    return int(store.side("valid").any(axis=1).argmax())


def _block(steps: Steps, time: NDArray[np.datetime64], grid: WindowGrid, judgement: Judgement) -> Block:
    low, high = grid.time.within(*steps)
    return Block(
        first=steps[0],
        stop=steps[1],
        start=_utc(time[steps[0]]),
        end=_utc(time[steps[1] - 1]),
        first_window=low * grid.per_time,
        stop_window=high * grid.per_time,
        usable=int(judgement.usable[low:high].sum()),
        missing=int(judgement.missing[low:high].sum()),
        too_many_nan=int(judgement.too_many_nan[low:high].sum()),
    )


def _utc(time: np.datetime64) -> datetime:
    return datetime.fromtimestamp(int(time.astype("datetime64[s]").astype(int)), UTC)


def _check_training_windows(blocks: Sequence[Block], windows: WindowConfig) -> None:
    if any(block.usable for block in blocks):
        return
    missing, nan = sum(b.missing for b in blocks), sum(b.too_many_nan for b in blocks)
    raise ValueError(
        f"No usable training windows: of {missing + nan}, {missing} cover a step at which a channel is missing and "
        f"{nan} have a channel with more NaN than windows.max_nan_share ({windows.max_nan_share:g}); "
        "fill the gaps, leave channels out of the recipe, lower windows.time or raise windows.max_nan_share"
    )


def _warnings(statistics: Sequence[ChannelStatistics], splits: dict[str, tuple[Block, ...]]) -> list[str]:
    found = [
        f"channel {s.channel} is {s.min:g} all over the training period; it becomes 0 when normalised"
        for s in statistics
        if s.std == 0
    ]
    for name, blocks in splits.items():
        if not any(block.usable for block in blocks):
            found.append(f"{name} has no usable window")
    return found


def split_periods(
    config: SplitConfig, time: NDArray[np.datetime64], chosen: Steps, window: int
) -> dict[str, list[Steps]]:
    """Return the blocks of each split as step ranges within `chosen`, at least `window` steps apart.

    `ValueError` when a block is shorter than a window, or periods of different splits are too close.
    """
    gap = max(config.gap or 0, window)
    if config.train:
        return _explicit_periods(config, time, chosen, window, gap)
    shares = {
        "train": 1 - config.validation_share - config.test_share,
        "validation": config.validation_share,
        "test": config.test_share,
    }
    names = [name for name in SPLITS if shares[name] > 0] * config.cycles
    first, stop = chosen
    steps = stop - first - gap * (len(names) - 1)
    ends = np.rint(np.cumsum([shares[name] / config.cycles for name in names]) * steps).astype(int)
    starts = np.concatenate([[0], ends[:-1]])
    periods: dict[str, list[Steps]] = {name: [] for name in names}
    for k, name in enumerate(names):
        if ends[k] - starts[k] < window:
            raise ValueError(
                f"splits: a block of {name} would get {max(0, ends[k] - starts[k])} of {stop - first} steps, with gaps "
                f"of {gap}, but a window needs {window}; widen the time range, lower splits.cycles or windows.time, "
                "or change the shares"
            )
        periods[name].append((first + int(starts[k]) + k * gap, first + int(ends[k]) + k * gap))
    return periods


def _explicit_periods(
    config: SplitConfig, time: NDArray[np.datetime64], chosen: Steps, window: int, gap: int
) -> dict[str, list[Steps]]:
    named = [(name, period) for name in SPLITS for period in getattr(config, name)]
    placed: list[tuple[Steps, str, Period]] = []
    for name, period in named:
        first, stop = time_range(time, period.start, period.end)
        steps = max(first, chosen[0]), min(stop, chosen[1])
        if steps[1] - steps[0] < window:
            raise ValueError(
                f"splits.{name}: {period.start} to {period.end} holds {max(0, steps[1] - steps[0])} steps of the "
                f"chosen range {time[chosen[0]]} to {time[chosen[1] - 1]}, but a window needs {window}; correct it"
            )
        placed.append((steps, name, period))
    placed.sort(key=lambda p: p[0])
    periods: dict[str, list[Steps]] = {name: [] for name in SPLITS if getattr(config, name)}
    reach: dict[str, tuple[int, Period]] = {}
    for (first, stop), name, period in placed:
        for other, (end, before) in reach.items():
            if other != name and first - end < gap:
                raise ValueError(
                    f"splits: {other} ({before.start} to {before.end}) and {name} ({period.start} to {period.end}) "
                    f"need a gap of {gap} steps between them and have {first - end}; move one of them"
                )
        if periods[name] and first <= periods[name][-1][1]:
            first, stop = periods[name][-1][0], max(stop, periods[name].pop()[1])
        periods[name].append((first, stop))
        if name not in reach or stop > reach[name][0]:
            reach[name] = stop, period
    return periods


def channel_statistics(store: WindowStore, periods: Sequence[Steps]) -> tuple[ChannelStatistics, ...]:
    """Return the statistics of every channel over these steps, merged from the moments of each step.

    `ValueError` when a channel has no value there, or values that are not finite.
    """
    parts = []
    steps = np.zeros(len(store.channels), np.int64)
    for first, stop in periods:
        for low in range(first, stop, BATCH_STEPS):
            high = min(low + BATCH_STEPS, stop)
            parts.append(merge_moments(store.side("moments", low, high)))
            steps += store.side("valid", low, high).sum(axis=0)
    merged = merge_moments(np.stack(parts))
    pixels = steps * int(np.prod(store.geometry.plane))
    found = []
    for channel, values, all_values in zip(store.channels, merged, pixels.tolist(), strict=True):
        count = int(values[COUNT])
        if count == 0:
            raise ValueError(
                f"channel {channel} has no value in the training period; leave it out of the recipe or move the period"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"channel {channel} has infinite values in the training period; repair its source files")
        found.append(
            ChannelStatistics(
                channel=channel,
                count=count,
                mean=float(values[MEAN]),
                std=float(np.sqrt(values[M2] / count)),
                min=float(values[MINIMUM]),
                max=float(values[MAXIMUM]),
                nan_share=1 - count / all_values,
            )
        )
    return tuple(found)
