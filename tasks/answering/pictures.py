"""Pictures of answers and of how right they are."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from storage.image_text_dataset import ImageTextDataset
from storage.image_texts import read_rows
from storage.question_set import Asked
from storage.window_dataset import WindowDataset
from tasks.figures import subplots
from tasks.window_maps import coloured, field_of, mosaic, shown_kinds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tasks.answering.evaluation import Answered

COLUMNS, SIDE, QUESTIONS_SHOWN = 3, 224, 4
WIDTH, LINE, CHARACTERS = 3.6, 0.15, 54  # inches of a picture's side and of a line of text, and what fits in one


def _mean(table: Mapping[str, Any], kind: str, score: str = "exact") -> float:
    values = [seed["scores"].get(kind, {}).get(score) for seed in table["seeds"].values()]
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else np.nan


def draw_by_kind(scores: Mapping[str, Any]) -> Figure:
    """Draw the share of right answers of every decoder, and of the majority's answer, by kind of question with the
    number of questions.
    """
    tables, majority = scores["decoders"], scores["majority"]
    kinds = sorted(majority, key=lambda kind: (kind != "all", kind))
    figure, axis = subplots(figsize=(max(7, 1.3 * len(kinds)), 4), layout="constrained")
    width = 0.8 / (len(tables) + 1)
    bars = {"majority": [majority[kind]["exact"] or np.nan for kind in kinds]}
    bars |= {name: [_mean(table, kind) for kind in kinds] for name, table in tables.items()}
    for at, (name, values) in enumerate(bars.items()):
        colour = f"C{at - 1}" if at else "#999999"  # decoders have theirs in all pictures
        axis.bar(np.arange(len(kinds)) + width * at, values, width, label=name, color=colour)
    labels = [f"{kind.replace('_', '/')}\n{majority[kind]['questions']}" for kind in kinds]
    axis.set_xticks(np.arange(len(kinds)) + width * len(tables) / 2, labels)
    axis.set(ylabel="exact match", ylim=(0, 1))
    axis.legend(fontsize=8)
    return figure


def draw_depths(tables: Mapping[str, Any]) -> Figure:
    """Draw the share of right answers after so many steps of recursive decoders, one line a seed."""
    figure, axis = subplots(figsize=(7, 4), layout="constrained")
    for at, (name, table) in enumerate(tables.items()):
        for number, seed in enumerate(table["seeds"].values()):
            if seed["by_depth"]:
                depths = sorted(seed["by_depth"], key=int)
                values = [seed["by_depth"][depth] for depth in depths]
                label = name if number == 0 else None
                axis.plot([int(d) for d in depths], values, "-o", color=f"C{at}", label=label, markersize=3)
    axis.set_xscale("log", base=2)
    axis.set(xlabel="steps of recursion", ylabel="answers right to the token")
    axis.legend(fontsize=8)
    return figure


def draw_costs(tables: Mapping[str, Any]) -> Figure:
    """Draw exact match against parameters and against operations."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    figure, axes = subplots(1, 2, figsize=(10, 3.2), layout="constrained", sharey=True)
    costs = (("parameters", 1.0, "parameters"), ("gflops", 1e9, "operations a question"))
    for axis, (cost, unit, label) in zip(axes, costs, strict=True):
        for at, (name, table) in enumerate(tables.items()):
            axis.plot(unit * table[cost], _mean(table, "all"), "o", color=f"C{at}", label=name)
        axis.set(xlabel=label)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.xaxis.set_minor_locator(NullLocator())
    axes[0].set_ylabel("exact match")
    axes[1].legend(fontsize=8)
    return figure


class Pictures(Protocol):
    """Gives pictures of what questions are about."""

    def of(self, asked: Asked) -> tuple[NDArray[Any], str]:
        """Return (H, W, 3), and what to write above it."""


class ImagePictures:
    """Images of the test split."""

    def __init__(self, shards: Path, index: Path) -> None:
        self._places = {row["row"]: place for place, row in enumerate(read_rows(shards, index, "test"))}
        self._images = ImageTextDataset(shards, index, "test", side=SIDE, fit="pad")

    def of(self, asked: Asked) -> tuple[NDArray[Any], str]:
        """Return the image, without words."""
        return self._images[self._places[asked.row]]["image"].permute(1, 2, 0).numpy(), ""


class WindowPictures:
    """Weather windows of the test split."""

    def __init__(self, store: Path, training_set: Path) -> None:
        self._windows = WindowDataset(store, training_set, "test")

    def of(self, asked: Asked) -> tuple[NDArray[Any], str]:
        """Return maps of the window's means over its steps, two in a row, and the window's name with theirs."""
        kinds = shown_kinds(self._windows)
        sample = self._windows[asked.row]
        fields = self._windows.physical(sample["data"], sample["valid"]).numpy()
        maps = [coloured(field_of(self._windows, fields, kind).mean(0)) for kind in kinds]
        return mosaic(maps), f"{asked.key}: {', '.join(kinds)}"


def draw_answers(answered: Mapping[str, Answered], pictures: Pictures, most: int) -> Figure:
    """Draw what was asked about with the questions, the truth, and what each model answers."""
    asked = next(iter(answered.values())).asked
    items = sorted({one.item for one in asked})
    shown = [items[k * len(items) // most] for k in range(min(most, len(items)))]
    told = [_told(answered, [k for k, one in enumerate(asked) if one.item == item], pictures) for item in shown]
    columns = min(COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    below = LINE * max(len(words) for _, words in told)
    figure, axes = subplots(
        2 * lines, columns, figsize=(WIDTH * columns, (WIDTH + below) * lines), layout="constrained", squeeze=False,
        height_ratios=[WIDTH, below] * lines,
    )  # fmt: skip
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (picture, words) in enumerate(told):
        line, column = divmod(number, columns)
        axes[2 * line, column].imshow(picture)
        text = axes[2 * line + 1, column].text(0, 1, "\n".join(words), va="top", fontsize=8)
        text.set_in_layout(False)  # what is too long is no reason for smaller pictures
    return figure


def _told(
    answered: Mapping[str, Answered], places: Sequence[int], pictures: Pictures
) -> tuple[NDArray[Any], list[str]]:
    """Return the picture of what was asked about at places, and the lines below it."""
    asked = next(iter(answered.values())).asked
    picture, above = pictures.of(asked[places[0]])
    lines = textwrap.wrap(above, CHARACTERS)
    for place in places[:QUESTIONS_SHOWN]:
        said = ", ".join(f"{name}: {answers.answers[place]}" for name, answers in answered.items())
        lines += textwrap.wrap(f"{asked[place].question} ({asked[place].answer})", CHARACTERS)
        lines += [f"   {line}" for line in textwrap.wrap(said, CHARACTERS - 3)[:3]]
    return picture, [_drawable(line) for line in lines]


def _drawable(text: str) -> str:
    """Return a text without what fonts do not have and what matplotlib takes for mathematics."""
    return "".join(c if c.isprintable() else "\N{MIDDLE DOT}" for c in text).replace("$", r"\$")
