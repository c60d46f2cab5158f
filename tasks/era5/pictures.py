"""Pictures and tables of a window store: coverage in time, maps of windows, statistics."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from storage.files import atomic_path
from storage.training_set import TrainingSet
from storage.window_dataset import WindowDataset
from storage.window_store import WindowStore
from tasks.figures import subplots
from tasks.window_maps import moment_of

MISSING, VALID, PRELIMINARY = 0, 1, 2
COVERAGE_COLUMNS = 1200  # pixels of time in the coverage chart
MAPPED_CHANNELS = 12


def draw_coverage(store: WindowStore, prepared: TrainingSet) -> Figure:
    """Draw time x channel: valid, missing, preliminary (ERA5T), with the splits above, from the first step that any
    channel has to the last: a store reaches to the ends of its shards.
    """
    valid = store.side("valid")
    held = np.flatnonzero(valid.any(1))
    first, stop = (int(held[0]), int(held[-1]) + 1) if len(held) else (0, len(valid))
    state = np.where(valid, np.where(store.side("expver") == 5, PRELIMINARY, VALID), MISSING)[first:stop]
    columns = _worst_per_column(state, min(COVERAGE_COLUMNS, len(state)))
    colours = ListedColormap(["#d9534f", "#3b7dd8", "#f0ad4e"])
    figure, axes = subplots(figsize=(11, 1.6 + 0.24 * len(store.channels)), layout="constrained")
    axes.imshow(
        columns.T, aspect="auto", interpolation="nearest", cmap=colours, norm=BoundaryNorm([-0.5, 0.5, 1.5, 2.5], 3)
    )
    axes.set_yticks(range(len(store.channels)), store.channels, fontsize=8)
    ticks = np.linspace(0, len(columns) - 1, 6).astype(int)
    steps = (first + ticks * len(state) // len(columns)).tolist()
    axes.set_xticks(ticks, [str(store.time[step].astype("datetime64[h]")) for step in steps], fontsize=8)
    for split, colour in {"train": "#2e7d4f", "validation": "#8a5fbf", "test": "#444444"}.items():
        for block in prepared.splits.get(split, ()):
            left, right = ((step - first) * len(columns) / len(state) for step in (block.first, block.stop))
            axes.plot([left - 0.5, right - 0.5], [-0.9, -0.9], color=colour, linewidth=5, solid_capstyle="butt")
            axes.text((left + right) / 2, -1.25, split, color=colour, ha="center", fontsize=8)
    axes.set_ylim(len(store.channels) - 0.5, -2.0)
    legend = {"valid": "#3b7dd8", "missing": "#d9534f", "ERA5T": "#f0ad4e"}
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in legend.values()]
    axes.legend(handles, legend.keys(), ncols=3, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1.0), frameon=False)
    axes.set_title("coverage", loc="left", fontsize=10)
    return figure


def _worst_per_column(state: NDArray[np.int64], columns: int) -> NDArray[np.int64]:
    """Shrink (time, channel) states to so many columns; a missing step is never hidden, nor is an ERA5T one."""
    edges = np.linspace(0, len(state), columns + 1).astype(int)[:-1]
    missing = np.logical_or.reduceat(state == MISSING, edges, axis=0)
    preliminary = np.logical_or.reduceat(state == PRELIMINARY, edges, axis=0)
    return np.where(missing, MISSING, np.where(preliminary, PRELIMINARY, VALID))


def choose_channels(names: Sequence[str], wanted: Sequence[str] = (), most: int = MAPPED_CHANNELS) -> list[str]:
    """Return the wanted channels; without any, at most so many, spread evenly over variables and their levels.

    `(["t@850", "t@500", "t@100", "u10", "v10"], most=3) => ["t@500", "u10", "v10"]`
    """
    if unknown := [name for name in wanted if name not in names]:
        raise ValueError(f"report_channels: the store has no {', '.join(unknown)}; it has {', '.join(names)}")
    if wanted:
        return list(dict.fromkeys(wanted))
    variables: dict[str, list[str]] = {}
    for name in names:
        variables.setdefault(name.split("@")[0], []).append(name)
    groups = list(variables.values())
    if len(groups) > most:
        groups = [groups[i] for i in np.linspace(0, len(groups) - 1, most).round().astype(int)]
    shares = _fair_shares([len(group) for group in groups], most)
    levelled = [group for group in groups if len(group) > 1]
    chosen = []
    for group, share in zip(groups, shares, strict=True):
        offset = (levelled.index(group) + 0.5) / len(levelled) if group in levelled else 0
        chosen += [group[int((k + offset) * len(group) / share)] for k in range(share)]
    return chosen


def _fair_shares(sizes: Sequence[int], total: int) -> list[int]:
    """Give each group one, then the rest in turn to those that have more: `([1, 13, 2], 6) => [1, 3, 2]`."""
    shares = [1] * len(sizes)
    while sum(shares) < min(total, sum(sizes)):
        open_groups = [i for i, size in enumerate(sizes) if shares[i] < size]
        shares[min(open_groups, key=lambda i: shares[i])] += 1
    return shares


def draw_windows(
    store: WindowStore, store_folder: Path, set_folder: Path, channels: Sequence[str], most: int = 4
) -> Figure:
    """Draw the last step of a few training windows, one row per channel, in physical units."""
    dataset = WindowDataset(store_folder, set_folder, "train")
    chosen = np.linspace(0, len(dataset) - 1, min(most, len(dataset))).astype(int)
    samples = [dataset[int(i)] for i in chosen]
    fields = [dataset.physical(sample["data"], sample["valid"])[:, -1].numpy() for sample in samples]
    figure, axes = _map_axes(len(channels), len(samples))
    for row, name in enumerate(channels):
        index = store.channels.index(name)
        colours = _colours(name, np.stack([field[index] for field in fields]))
        for column, (sample, field) in enumerate(zip(samples, fields, strict=True)):
            picture = axes[row][column].imshow(field[index], extent=_extent(sample), aspect="auto", **colours)
            axes[row][column].tick_params(labelsize=6, labelbottom=row == len(channels) - 1)
            axes[row][column].locator_params(nbins=3)
        bar = figure.colorbar(picture, cax=axes[row][-1], ticks=MaxNLocator(4), format="%.6g")
        bar.ax.tick_params(labelsize=6)
        axes[row][0].set_ylabel(f"{name}\n{store.attrs['units'][name]}", fontsize=7)
    for column, sample in enumerate(samples):
        axes[0][column].set_title(f"{moment_of(dataset, sample['time'], -1)} UTC", fontsize=8)
    if len(channels) < len(store.channels):
        words = f"{len(channels)} of {len(store.channels)} channels; name others in report_channels"
        figure.text(0.01, 1 - 0.2 / figure.get_figheight(), words, fontsize=8)
    return figure


def _map_axes(rows: int, columns: int) -> tuple[Figure, NDArray[Any]]:
    """Return axes (rows, columns + 1) for maps and their colour bars, placed by arithmetic.

    Layout engines measure every text of every axes again and again: with hundreds of axes that takes minutes.
    """
    width, height = 2.3 * columns + 1.2, 1.7 * rows + 0.9
    figure, axes = subplots(
        rows,
        columns + 1,
        figsize=(width, height),
        squeeze=False,
        width_ratios=[*[1] * columns, 0.05],
        gridspec_kw={
            "left": 0.75 / width, "right": 1 - 0.55 / width, "bottom": 0.3 / height, "top": 1 - 0.5 / height,
            "wspace": 0.25, "hspace": 0.1,
        },
    )  # fmt: skip
    return figure, axes


def _extent(sample: dict[str, Any]) -> tuple[float, float, float, float]:
    latitude, longitude = np.asarray(sample["latitude"]), np.asarray(sample["longitude"])
    return float(longitude[0]), float(longitude[-1]), float(latitude[-1]), float(latitude[0])


def _colours(channel: str, values: NDArray[np.float32]) -> dict[str, Any]:
    """Return colour map and limits that all maps of a channel share; winds are centred on calm."""
    kind = channel.split("@")[0]
    if np.isnan(values).all():
        return {}
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if kind in ("u10", "v10", "u100", "v100", "u", "v"):
        return {"cmap": "RdBu_r", "vmin": -max(-low, high), "vmax": max(-low, high)}
    names = {"tp": "Blues", "cp": "Blues", "r": "BrBG", "ssrd": "inferno", "sst": "turbo"}
    return {"cmap": names.get(kind, "viridis"), "vmin": low, "vmax": high}


def write_statistics(store: WindowStore, prepared: TrainingSet, path: Path) -> None:
    """Write each channel's statistics over the training period as a CSV table."""
    units = store.attrs["units"]
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["channel", "units", "values", "mean", "std", "min", "max", "NaN share"])
        for name, s in zip(store.channels, prepared.statistics, strict=True):
            numbers = [f"{value:.6g}" for value in (s.mean, s.std, s.min, s.max)]
            writer.writerow([name, units[name], s.count, *numbers, f"{s.nan_share:.2%}"])
