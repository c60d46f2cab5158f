"""Ingests raw files as xarray does it: `open_mfdataset(...).to_zarr(...)`; arguments: raw, store, threads.

Chunks, shards and codec are those of our store, per variable. A Dask chunk is 24 steps of whole planes: it holds whole
shards, as safe writing needs, and meets each HDF5 chunk once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import dask
import xarray as xr
from zarr.codecs import BloscCodec

from benchmarks.stopwatch import Stopwatch
from configs.weather import StoreLayout


def encoding(variable: xr.DataArray, layout: StoreLayout) -> dict[str, Any]:
    """Return our store's layout for one variable."""
    assert layout.codec != "none"
    levels = variable.shape[1:-2]
    rows, columns = (
        layout.chunk_space * min(count, -(-size // layout.chunk_space))
        for count, size in zip(layout.shard_chunks, variable.shape[-2:], strict=True)
    )
    return {
        "chunks": (layout.chunk_time, *levels, layout.chunk_space, layout.chunk_space),
        "shards": (layout.shard_time, *levels, rows, columns),
        "compressors": [BloscCodec(cname=layout.codec, clevel=layout.level, shuffle="shuffle")],
    }


def main(task: dict[str, Any]) -> None:
    """Write the store and answer with what it cost."""
    layout = StoreLayout()
    with dask.config.set(scheduler="threads", num_workers=task["threads"]), Stopwatch() as watch:
        dataset = xr.open_mfdataset(
            sorted(Path(task["raw"]).glob("*.nc")),
            chunks={"valid_time": layout.shard_time, "pressure_level": -1, "latitude": -1, "longitude": -1},
            data_vars="minimal",
            coords="minimal",
            compat="override",
            join="exact",
        )
        layouts = {str(name): encoding(variable, layout) for name, variable in dataset.data_vars.items()}
        dataset.drop_encoding().to_zarr(task["store"], mode="w", zarr_format=3, consolidated=False, encoding=layouts)
    print(json.dumps(watch.as_json()), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
