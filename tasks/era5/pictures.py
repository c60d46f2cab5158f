"""Pictures and tables of a window store: coverage in time, maps of windows, statistics."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from storage.files import atomic_path
from storage.training_set import TrainingSet
from storage.window_dataset import WindowDataset
from storage.window_store import WindowStore

MISSING, VALID, PRELIMINARY = 0, 1, 2
COVERAGE_COLUMNS = 1200  # pixels of time in the coverage chart


def draw_coverage(store: WindowStore, prepared: TrainingSet) -> Figure:
    """Draw time x channel: valid, missing, preliminary (ERA5T), with the splits above."""
    state = np.where(store.side("valid"), np.where(store.side("expver") == 5, PRELIMINARY, VALID), MISSING)
    columns = _worst_per_column(state, min(COVERAGE_COLUMNS, len(state)))
    colours = ListedColormap(["#d9534f", "#3b7dd8", "#f0ad4e"])
    figure, axes = plt.subplots(figsize=(11, 1.6 + 0.24 * len(store.channels)), layout="constrained")
    axes.imshow(
        columns.T, aspect="auto", interpolation="nearest", cmap=colours, norm=BoundaryNorm([-0.5, 0.5, 1.5, 2.5], 3)
    )
    axes.set_yticks(range(len(store.channels)), store.channels, fontsize=8)
    ticks = np.linspace(0, len(columns) - 1, 6).astype(int)
    steps = (ticks * len(state) // len(columns)).tolist()
    axes.set_xticks(ticks, [str(store.time[step].astype("datetime64[h]")) for step in steps], fontsize=8)
    for split, colour in {"train": "#2e7d4f", "validation": "#8a5fbf", "test": "#444444"}.items():
        for block in prepared.splits.get(split, ()):
            left, right = (step * len(columns) / len(state) for step in (block.first, block.stop))
            axes.plot([left - 0.5, right - 0.5], [-0.9, -0.9], color=colour, linewidth=5, solid_capstyle="butt")
            axes.text((left + right) / 2, -1.25, split, color=colour, ha="center", fontsize=8)
    axes.set_ylim(len(store.channels) - 0.5, -2.0)
    legend = {"valid": "#3b7dd8", "missing": "#d9534f", "ERA5T": "#f0ad4e"}
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in legend.values()]
    axes.legend(handles, legend.keys(), ncols=3, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1.0), frameon=False)
    axes.set_title("coverage", loc="left", fontsize=10)
    return figure


def _worst_per_column(state: NDArray[np.int64], columns: int) -> NDArray[np.int64]:
    """Shrink (time, channel) states to so many columns; a missing step is never hidden, nor is an ERA5T one."""
    edges = np.linspace(0, len(state), columns + 1).astype(int)[:-1]
    missing = np.logical_or.reduceat(state == MISSING, edges, axis=0)
    preliminary = np.logical_or.reduceat(state == PRELIMINARY, edges, axis=0)
    return np.where(missing, MISSING, np.where(preliminary, PRELIMINARY, VALID))


def draw_windows(store: WindowStore, store_folder: Path, set_folder: Path, most: int = 4) -> Figure:
    """Draw the last step of a few training windows, one row per channel, in physical units."""
    dataset = WindowDataset(store_folder, set_folder, "train")
    chosen = np.linspace(0, len(dataset) - 1, min(most, len(dataset))).astype(int)
    samples = [dataset[int(i)] for i in chosen]
    fields = [dataset.physical(sample["data"], sample["valid"])[:, -1].numpy() for sample in samples]
    rows = len(store.channels)
    figure, axes = plt.subplots(
        rows, len(samples), figsize=(2.3 * len(samples) + 1.2, 1.8 * rows + 0.4), squeeze=False, layout="constrained"
    )
    for row, name in enumerate(store.channels):
        colours = _colours(name, np.stack([field[row] for field in fields]))
        for column, (sample, field) in enumerate(zip(samples, fields, strict=True)):
            picture = axes[row][column].imshow(field[row], extent=_extent(sample), aspect="auto", **colours)
            axes[row][column].tick_params(labelsize=6)
        figure.colorbar(picture, ax=axes[row], shrink=0.9, pad=0.01).ax.tick_params(labelsize=6)
        axes[row][0].set_ylabel(f"{name}\n{store.attrs['units'][name]}", fontsize=7)
    for column, sample in enumerate(samples):
        moment = np.datetime64(int(sample["time"]), "s").astype("datetime64[h]")
        axes[0][column].set_title(f"{moment} UTC", fontsize=8)
    return figure


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
