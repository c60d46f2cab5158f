"""Pictures of images: a contact sheet with texts, and duplicates side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import simplejpeg
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tasks.figures import subplots
from tasks.image_text.report_samples import Pair, Sample

Pixels = NDArray[np.uint8]

COLUMNS = 6
PAIR_COLUMNS = 3
LINES = 6
LINE_WIDTH = 35
LINE_HEIGHT = 0.155
DULL = "#6b7378"
WIDTH = 14.0
TALLEST = 1.05
"""Height of the place for an image over its width; taller images are drawn smaller."""


def draw_samples(samples: Sequence[Sample]) -> Figure:
    """Draw images with one text each."""
    pictures = [simplejpeg.decode_jpeg(sample.jpeg, "RGB") for sample in samples]
    texts = [text_lines(sample) for sample in samples]
    heights = []
    for part in _rows(len(samples), COLUMNS):
        heights += [0.95 * WIDTH / COLUMNS * _tallest(pictures[part]), 0.45 + LINE_HEIGHT * max(map(len, texts[part]))]
    figure, axes = _grid(heights, [1.0] * COLUMNS, 0.09)
    for number, (picture, lines) in enumerate(zip(pictures, texts, strict=True)):
        row, column = divmod(number, COLUMNS)
        _image(axes[2 * row, column], picture)
        _text(axes[2 * row + 1, column], samples[number], lines, heights[2 * row + 1])
    return figure


def _rows(count: int, columns: int) -> list[slice]:
    return [slice(start, start + columns) for start in range(0, count, columns)]


def _tallest(pictures: Sequence[Pixels]) -> float:
    return min(TALLEST, max(picture.shape[0] / picture.shape[1] for picture in pictures))


def _grid(heights: Sequence[float], widths: Sequence[float], gap: float) -> tuple[Figure, Any]:
    """Return a figure with invisible axes of these heights in inches and relative widths."""
    edges = {"left": 0.01, "right": 0.99, "top": 1.0, "bottom": 0.0, "wspace": gap, "hspace": 0.0}
    figure, axes = subplots(
        len(heights),
        len(widths),
        figsize=(WIDTH, sum(heights)),
        height_ratios=heights,
        width_ratios=widths,
        squeeze=False,
        gridspec_kw=edges,
    )
    for place in axes.flat:
        place.axis("off")
    return figure, axes


def _image(place: Axes, picture: Pixels) -> None:
    place.imshow(picture, interpolation="antialiased")
    place.set_anchor("S")


def _text(place: Axes, sample: Sample, lines: Sequence[str], height: float) -> None:
    """Write a text under its image; heights in inches from the top."""
    more = f", {sample.texts} texts" if sample.texts > 1 else ""
    marked = ", templated" if sample.text["templated"] else ""
    place.text(0, 1 - 0.05 / height, f"{sample.split}{more}{marked}", fontsize=7, color=DULL, va="top")
    text = "\n".join(lines)
    place.text(0, 1 - 0.2 / height, text, fontsize=8.5, va="top", linespacing=1.15, parse_math=False)


def text_lines(sample: Sample) -> list[str]:
    """Return a text as short lines: the question and its answer, or the caption."""
    text = sample.text
    if not text["question"]:
        return textwrap.wrap(text["caption"], LINE_WIDTH, max_lines=LINES, placeholder=" …")
    question = textwrap.wrap(f"Q: {text['question']}", LINE_WIDTH, max_lines=LINES // 2, placeholder=" …")
    room = LINES - len(question)
    return question + textwrap.wrap(f"A: {text['answer']}", LINE_WIDTH, max_lines=room, placeholder=" …")


def draw_pairs(pairs: Sequence[Pair]) -> Figure:
    """Draw duplicates beside the images that stay in their stead."""
    pictures = [[simplejpeg.decode_jpeg(jpeg, "RGB") for jpeg in pair.jpegs] for pair in pairs]
    heights = []
    for part in _rows(len(pairs), PAIR_COLUMNS):
        tallest = _tallest([picture for two in pictures[part] for picture in two])
        heights += [0.32, 0.9 * WIDTH / (2 * PAIR_COLUMNS) * tallest, 0.12]
    figure, axes = _grid(heights, [1.0, 1.0, 0.08] * PAIR_COLUMNS, 0.03)
    for number, (pair, two) in enumerate(zip(pairs, pictures, strict=True)):
        row, column = divmod(number, PAIR_COLUMNS)
        for side, label in enumerate((f"{pair.stays} stays", f"{pair.out} is left out: {_difference(pair)}")):
            place = axes[3 * row + 1, 3 * column + side]
            _image(place, two[side])
            place.set_title(label, fontsize=8, pad=3)
    return figure


def _difference(pair: Pair) -> str:
    if pair.reason == "dup_exact":
        return "same bytes"
    bits = {0: "equal hash", 1: "1 bit differs"}.get(pair.distance, f"{pair.distance} bits differ")
    return f"{bits}, near two splits" if pair.reason == "dup_two_sides" else bits
