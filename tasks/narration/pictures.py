"""Pictures of what narrators write, and of what they need the window for."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from storage.window_dataset import WindowDataset
from tasks.captions.region_table import Box
from tasks.figures import subplots
from tasks.window_maps import field_of, limits, moment_of, shown_kinds

SHOWN_WINDOWS = {
    "true": ("its window", "#2e7d4f"),
    "shuffled": ("fields of another date", "#d9534f"),
    "blind": ("no window", "#777777"),
}
"""What a narrator was shown, with words and a colour."""


def draw_told(windows: WindowDataset, told: Sequence[tuple[int, Box | None, str, Sequence[str]]]) -> Figure:
    """Draw for each (window, region's box, text, captions) maps of the window's last step, and below them the texts."""
    kinds = shown_kinds(windows)
    figure, axes = subplots(
        2 * len(told), len(kinds), figsize=(2.75 * len(kinds), 3.1 * len(told)), squeeze=False, layout="constrained",
        height_ratios=[2, 1.1] * len(told),
    )  # fmt: skip
    units = windows.store.attrs["units"]
    for row, (window, box, text, captions) in enumerate(told):
        maps, below = axes[2 * row], axes[2 * row + 1]
        sample = windows[window]
        fields = windows.physical(sample["data"], sample["valid"])[:, -1].numpy()
        latitude, longitude = np.asarray(sample["latitude"]), np.asarray(sample["longitude"])
        extent = (float(longitude[0]), float(longitude[-1]), float(latitude[-1]), float(latitude[0]))
        for axis, kind in zip(maps, kinds, strict=True):
            field = field_of(windows, fields, kind)
            low, high = limits(field)
            picture = axis.imshow(field, extent=extent, aspect="auto", vmin=low, vmax=high)
            figure.colorbar(picture, ax=axis, pad=0.01).ax.tick_params(labelsize=7)
            axis.set_title(f"{kind}, {units['u10' if kind == 'wind' else kind]}", fontsize=9)
            axis.tick_params(labelsize=7)
            _outline(axis, box, extent)
        for axis in below:
            axis.axis("off")
        moment = moment_of(windows, sample["time"], -1)
        _write(below[0], f"{moment} UTC", text, captions, wide=38 * len(kinds))
    return figure


def _outline(axis: Axes, box: Box | None, extent: tuple[float, float, float, float]) -> None:
    if box is None:
        return
    north, west, south, east = box
    west += 360 * round((extent[0] - west) / 360)
    axis.add_patch(Rectangle((west, south), (east - west) % 360, north - south, fill=False, color="red", lw=1.2))
    axis.set_xlim(extent[0], extent[1])
    axis.set_ylim(extent[2], extent[3])


def _write(axis: Axes, title: str, text: str, captions: Sequence[str], wide: int) -> None:
    lines = [title, "written: " + (text or "(nothing)"), *(f"caption: {caption}" for caption in captions[:2])]
    wrapped = "\n".join(textwrap.fill(_drawable(line), wide) for line in lines)
    words = axis.text(0, 1, wrapped, va="top", fontsize=9, transform=axis.transAxes)
    words.set_in_layout(False)  # it reaches over the columns to its right


def _drawable(line: str) -> str:
    """Return a line without control characters, which a model may write and no font has, or math mode."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line).replace("$", r"\$")


def draw_likelihoods(tables: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw nats per caption token of each narrator, and how much more the best control needs."""
    names = list(tables)
    figure, (left, right) = subplots(
        1, 2, figsize=(11, 1.4 + 0.45 * len(names)), layout="constrained", width_ratios=(2, 1)
    )
    places = np.arange(len(names))
    for k, (condition, (label, colour)) in enumerate(SHOWN_WINDOWS.items()):
        nats = [tables[name]["nats_per_token"][condition] for name in names]
        left.barh(places + 0.27 * (k - 1), nats, 0.25, color=colour, label=label)
    left.set_yticks(places, names, fontsize=8)
    left.invert_yaxis()
    left.set_xlabel("nats per caption token")
    left.set_xlim(0, 1.3 * left.get_xlim()[1])  # room for the legend
    left.legend(fontsize=7, loc="lower right")
    gaps = [tables[name]["gap"] for name in names]
    low, values, high = np.array([[gap[end] for end in ("low", "value", "high")] for gap in gaps], np.float64).T
    reach = np.maximum([values - low, high - values], 0)
    right.errorbar(values, places, xerr=reach, fmt="o", color="#2e7d4f", capsize=3)
    right.axvline(0, color="#777777", linewidth=0.8)
    right.set_yticks(places, [""] * len(names))
    right.invert_yaxis()
    right.set_xlabel("best control minus true, 95 %")
    return figure
