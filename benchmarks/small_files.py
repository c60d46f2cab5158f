"""Raw files of a small region with 74 channels in a file each: nine variables at the surface, five on 13 levels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from benchmarks.raw_files import FIRST

LEVELS = (1000, 925, 850, 700, 600, 500, 400, 300, 250, 200, 150, 100, 50)
ON_LEVELS = ("r", "t", "u", "v", "z")
AT_SURFACE = ("blh", "d2m", "msl", "skt", "sp", "t2m", "tcc", "u10", "v10")
CHANNELS = len(AT_SURFACE) + len(ON_LEVELS) * len(LEVELS)

Storage = Literal["contiguous", "one chunk", "chunk per plane"]
"""As xarray writes files; compressed, in the one chunk that the NetCDF library chooses; compressed plane by plane."""


@dataclass(frozen=True, slots=True)
class SmallFiles:
    """What to generate: hourly noise on a quarter-degree grid."""

    rows: int
    columns: int
    steps: int
    storage: Storage

    @property
    def planes(self) -> int:
        """Time steps of all channels."""
        return self.steps * CHANNELS


def make_small_files(data: SmallFiles, folder: Path) -> None:
    """Write all files into a new folder."""
    folder.mkdir()
    random = np.random.default_rng(CHANNELS)
    for name in (*AT_SURFACE, *ON_LEVELS):
        dataset = xr.Dataset(coords=_coordinates(data, levels=name in ON_LEVELS))
        values = random.normal(280, 10, tuple(dataset.sizes.values())).astype(np.float32)
        dataset[name] = (tuple(dataset.sizes), values, {"units": "1"})
        dataset.to_netcdf(folder / f"{name}.nc", engine="netcdf4", encoding={name: _encoding(data, values.ndim)})


def _coordinates(data: SmallFiles, *, levels: bool) -> dict[str, Any]:
    axes = {
        "valid_time": (FIRST + 3600 * np.arange(data.steps), "seconds since 1970-01-01"),
        **({"pressure_level": (np.array(LEVELS, float), "hPa")} if levels else {}),
        "latitude": (50 - np.arange(data.rows) / 4, "degrees_north"),
        "longitude": (5 + np.arange(data.columns) / 4, "degrees_east"),
    }
    return {name: (name, values, {"units": units}) for name, (values, units) in axes.items()}


def _encoding(data: SmallFiles, dimensions: int) -> dict[str, Any]:
    compressed: dict[str, Any] = {"zlib": True, "complevel": 1}
    one_plane = (*[1] * (dimensions - 2), data.rows, data.columns)
    return {
        "contiguous": {},
        "one chunk": compressed,
        "chunk per plane": compressed | {"chunksizes": one_plane},
    }[data.storage]
