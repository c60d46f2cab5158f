"""Maps of weather windows: what is shown of one first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from storage.window_dataset import WindowDataset

SHOWN = ("t2m", "msl", "tp", "wind")
"""What maps show first, where the store has it."""


def moment_of(windows: WindowDataset, anchor: Tensor, step: int) -> np.datetime64:
    """Return the hour of a step of the window whose anchor step is at so many seconds since 1970; -1 is the last."""
    grid, time = windows.training_set.grid, windows.store.time
    first = int(np.searchsorted(time.astype(np.int64), int(anchor))) - grid.anchor_step
    return np.datetime64(time[first + step % grid.shape[0]], "h")


def shown_kinds(windows: WindowDataset) -> list[str]:
    """Return what maps of windows show: channels, and `wind` for the speed of u10 and v10."""
    names = windows.store.channels
    has = {**dict.fromkeys(names, True), "wind": {"u10", "v10"} <= set(names)}
    chosen = [kind for kind in SHOWN if has.get(kind)]
    return chosen or list(names[:3])


def field_of(windows: WindowDataset, fields: Any, kind: str) -> Any:
    """Return one of `shown_kinds` of fields (C, ...)."""
    names = windows.store.channels
    if kind == "wind":
        return np.hypot(fields[names.index("u10")], fields[names.index("v10")])
    return fields[names.index(kind)]


def limits(field: NDArray[Any]) -> tuple[float, float]:
    """Return a map's least and greatest value, the latter a thousandth more where all are equal; 0 and 1 of no value.

    A day without rain is so the bottom of the scale, and no colour in its middle.
    """
    there = field[np.isfinite(field)]
    low, high = (float(there.min()), float(there.max())) if len(there) else (0.0, 1.0)
    return low, high if high > low else low + 1e-3


def coloured(field: NDArray[Any]) -> NDArray[Any]:
    """Return a map (H, W) as a picture (H, W, 3), from its least value to its greatest; grey where there is none."""
    from matplotlib import colormaps

    there = np.isfinite(field)
    low, high = limits(field)
    scaled = np.where(there, (field - low) / (high - low), 0.0)
    return np.where(there[..., None], colormaps["viridis"](scaled)[..., :3], 0.85)


def mosaic(maps: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return pictures (H, W, 3) of one size as one, two in a row, with white between them."""
    height, width, _ = maps[0].shape
    lines = -(-len(maps) // 2)
    whole = np.ones((lines * (height + 1) - 1, 2 * width + 1 if len(maps) > 1 else width, 3))
    for k, each in enumerate(maps):
        row, column = k // 2 * (height + 1), k % 2 * (width + 1)
        whole[row : row + height, column : column + width] = each
    return whole
