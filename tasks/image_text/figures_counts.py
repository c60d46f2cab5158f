"""Pictures of numbers: what became of the images, how large they are, how long their texts, and the splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator
from numpy.typing import NDArray

from storage.shard_index import SPLITS
from storage.shard_set import OK, REFUSED
from tasks.figures import subplots
from tasks.image_text.survey import Survey

STORED, NOT_FETCHED, NOT_USABLE = "#2a9d5c", "#8a8f94", "#d98c3f"
BLUE, RED = "#2f6690", "#d1495b"
TEXT_COLOURS = {"caption": BLUE, "question": "#c98b2b", "answer": "#3a9d8f"}
SPLIT_COLOURS = {"train": "#2e7d4f", "validation": "#8a5fbf", "test": "#444444"}
BINS = 40


def draw_statuses(survey: Survey) -> Figure:
    """Draw how many images ended in which status."""
    ordered = sorted(survey.statuses.items(), key=lambda item: (item[0] != OK, -item[1], item[0]))
    total = survey.statuses.total()
    figure, place = subplots(figsize=(10, 0.9 + 0.3 * len(ordered)), layout="constrained")
    colours = [STORED if s == OK else NOT_USABLE if s in REFUSED else NOT_FETCHED for s, _ in ordered]
    bars = place.barh([status for status, _ in ordered], [count for _, count in ordered], color=colours, height=0.72)
    place.bar_label(bars, [f"{count:,}  ({count / total:.1%})" for _, count in ordered], padding=4, fontsize=9)
    place.invert_yaxis()
    place.set_xlim(0, 1.16 * max(survey.statuses.values()))
    _plain(place, f"{total:,} listed images, {survey.statuses[OK] / total:.1%} stored")
    place.set_xlabel("images")
    _thousands(place.xaxis)
    names = (("stored", STORED), ("not fetched", NOT_FETCHED), ("fetched, but not usable", NOT_USABLE))
    handles = [Patch(color=colour, label=name) for name, colour in names if colour in colours]
    place.legend(handles=handles, loc="lower right", frameon=False, fontsize=9)
    return figure


def draw_sizes(survey: Survey) -> Figure:
    """Draw width and height, aspect and bytes of the downloaded files that were stored."""
    width, height, size = (survey.sizes[name] for name in ("original_width", "original_height", "bytes"))
    figure, (left, middle, right) = subplots(1, 3, figsize=(14, 3.6), layout="constrained")
    edges = _log_edges(np.concatenate([width, height]))
    for values, name, colour in ((width, "width", BLUE), (height, "height", RED)):
        label = f"{name}, median {int(np.median(values)):,}"
        left.hist(values, edges, histtype="stepfilled", color=colour, alpha=0.45, label=label)
    _log_axis(left, edges)
    left.set_xlabel("pixels")
    left.legend(frameon=False, fontsize=8)
    left.margins(y=0.25)
    _plain(left, "width and height as downloaded")
    aspect = width / height
    edges = _log_edges(aspect)
    middle.hist(aspect, edges, color=BLUE)
    middle.axvline(1, color="#222222", linewidth=0.8, linestyle=":")
    _log_axis(middle, edges, (0.2, 0.33, 0.5, 0.67, 1, 1.5, 2, 3, 5))
    middle.set_xlabel("width / height")
    _plain(middle, f"aspect: {np.mean(aspect > 1):.0%} wide, {np.mean(aspect < 1):.0%} tall")
    edges = _log_edges(size / 1000)
    right.hist(size / 1000, edges, color=BLUE)
    _log_axis(right, edges)
    right.set_xlabel("kB")
    _plain(right, f"size as downloaded, median {np.median(size) / 1000:,.0f} kB")
    left.set_ylabel(f"images ({len(width):,} measured)")
    return figure


def draw_texts(survey: Survey) -> Figure:
    """Draw how many words captions, questions and answers have."""
    present = {name: words for name, words in survey.words.items() if len(words)}
    figure, axes = subplots(
        1, len(present), figsize=(14 if len(present) > 1 else 9, 3.2), squeeze=False, layout="constrained"
    )  # fmt: skip
    for place, (name, words) in zip(axes[0], present.items(), strict=True):
        longest = max(5, int(min(words.max(), 1.5 * np.percentile(words, 99))))
        edges = np.arange(0.5, longest + 1.5, max(1, longest // 50))
        place.hist(np.minimum(words, edges[-1] - 0.1), edges, color=TEXT_COLOURS[name])
        _plain(place, f"{name}s: median {int(np.median(words))} words, longest {int(words.max()):,}")
        place.set_xlabel("words" + (f" (more than {longest} at the right end)" if words.max() > longest else ""))
        _thousands(place.yaxis)
    axes[0, 0].set_ylabel("texts")
    return figure


def draw_splits(index: Mapping[str, Any]) -> Figure:
    """Draw how many images and texts are in each split."""
    splits = {name: index["splits"][name] for name in SPLITS}
    figure, axes = subplots(1, 2, figsize=(12, 1.9), layout="constrained", sharey=True)
    for place, what in zip(axes, ("images", "texts"), strict=True):
        counts = [splits[name][what] for name in splits]
        total = sum(counts)
        bars = place.barh(list(splits), counts, color=[SPLIT_COLOURS[name] for name in splits], height=0.7)
        place.bar_label(bars, [f"{count:,}  ({count / total:.1%})" for count in counts], padding=4, fontsize=9)
        place.set_xlim(0, 1.25 * max(counts))
        _plain(place, f"{total:,} {what}")
        _thousands(place.xaxis)
    axes[0].invert_yaxis()
    return figure


def _plain(place: Axes, title: str) -> None:
    place.set_title(title, loc="left", fontsize=10)
    place.spines[["top", "right"]].set_visible(False)
    place.tick_params(labelsize=9)


def _thousands(axis: Any) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.get_major_locator().set_params(integer=True)


def _log_edges(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return edges of bins that are equally wide on a logarithmic axis and hold all values."""
    low, high = float(values.min()) / 1.03, float(values.max()) * 1.03
    wider = max(1.0, 3 * low / high) ** 0.5
    return np.geomspace(low / wider, high * wider, BINS + 1)


def _log_axis(place: Axes, edges: NDArray[np.float64], ticks: Sequence[float] = ()) -> None:
    place.set_xscale("log")
    ticks = ticks or _round_numbers(edges[0], edges[-1])
    place.xaxis.set_major_locator(FixedLocator([t for t in ticks if edges[0] <= t <= edges[-1]]))
    place.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    place.xaxis.set_minor_locator(NullLocator())
    place.xaxis.set_minor_formatter(NullFormatter())
    _thousands(place.yaxis)


def _round_numbers(low: float, high: float) -> list[float]:
    """Return 1, 2, 5, 10 ... between two numbers, or more of them where these would be few."""
    few, many = (
        [n * 10.0**power for power in range(-3, 9) for n in numbers if low <= n * 10.0**power <= high]
        for numbers in ((1, 2, 5), (1, 1.5, 2, 3, 4, 6, 8))
    )
    return few if len(few) >= 4 else many
