"""Small window stores for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs.weather import Recipe, StoreLayout
from storage.window_store import BlockWriter, Geometry, WindowStore, write_metadata

LAYOUT = StoreLayout(chunk_time=4, chunk_space=16, shard_time=8, shard_chunks=(2, 3))
START = np.datetime64("2024-01-01T00", "s")


NAMES = ("u10", "v10", "t@850", "t@500")


def geometry(
    channels: int, rows: int, cols: int, layout: StoreLayout = LAYOUT, names: Sequence[str] = NAMES
) -> Geometry:
    """A grid that goes around the globe."""
    return Geometry(tuple(names[:channels]), np.linspace(60, 30, rows), np.arange(cols) * 360 / cols, layout)


def hourly(steps: int, hours: int = 1) -> NDArray[np.datetime64]:
    return START + np.arange(steps) * np.timedelta64(3600 * hours, "s")


def write_block(folder: Path, shape: Geometry, block: int, data: NDArray[np.float32]) -> list[str]:
    """Write one block from (time, channel, latitude, longitude); planes without values are missing."""
    steps, chunk_time = shape.layout.shard_time, shape.layout.chunk_time
    valid = np.zeros((steps, len(shape.channels)), bool)
    valid[: len(data)] = ~np.isnan(data).all(axis=(2, 3))
    with BlockWriter(folder, shape, block) as writer:
        for first in range(0, len(data), chunk_time):
            writer.write_slab(first, data[first : first + chunk_time])
        return writer.finish(valid, valid.astype(np.uint8) * 5, valid * np.uint64(2**63 + block))


def write_store(
    folder: Path,
    data: NDArray[np.float32],
    layout: StoreLayout = LAYOUT,
    blocks_missing: tuple[int, ...] = (),
    units: Mapping[str, str] | None = None,
    hours: int = 1,
    recipe: Recipe | None = None,
) -> WindowStore:
    """Write a whole store; `data` must be NaN in the missing blocks, `units` name its channels."""
    steps, channels, rows, cols = data.shape
    units = units or dict.fromkeys(NAMES[:channels], "K")
    shape = geometry(channels, rows, cols, layout, tuple(units))
    for block in range(-(-steps // layout.shard_time)):
        if block not in blocks_missing:
            write_block(folder, shape, block, data[block * layout.shard_time : (block + 1) * layout.shard_time])
    declared = (recipe or Recipe()).model_dump(mode="json")
    attrs = {"units": dict(units), "cadence": f"{hours} h", "recipe": declared}
    write_metadata(folder, shape, hourly(steps, hours), attrs)
    return WindowStore.open(folder)


def noise(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(280, 10, shape).astype(np.float32)
