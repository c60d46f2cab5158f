"""Serves rounds of window reads by one reader: ours, or one of its peers.

Arguments: reader, path, array (the shape of all data), shape (steps, height, width of a window), variables. Requests:
`{"check": [[t, y, x], ...]}` answers with digests of the windows as (time, channel, latitude, longitude);
`{"positions": [...], "seconds": s}` reads windows in that order until the time is over, at least eight.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.stopwatch import Stopwatch

Read = Callable[[int, int, int], NDArray[np.float32]]
TIME_FIRST = ("memmap", "zarr", "xbatcher_zarr")
"""Readers whose windows are (time, channel, ...) as they lie in the array; all others are (channel, time, ...)."""


def _millrace(task: dict[str, Any]) -> Read:
    """Our store."""
    from storage.window_store import WindowStore

    store, shape = WindowStore.open(Path(task["path"])), tuple(task["shape"])
    return lambda t, y, x: store.read(t, y, x, shape)


def _memmap(task: dict[str, Any]) -> Read:
    """The same array, uncompressed in one file: what copying alone costs."""
    array = np.memmap(task["path"], np.float32, "r", shape=tuple(task["array"]))
    steps, height, width = task["shape"]
    return lambda t, y, x: np.array(array[t : t + steps, :, y : y + height, x : x + width])


def _zarr(task: dict[str, Any]) -> Read:
    """zarr-python with its defaults, on our store."""
    import zarr

    array: Any = zarr.open_group(task["path"], mode="r")["data"]
    steps, height, width = task["shape"]
    return lambda t, y, x: array[t : t + steps, :, y : y + height, x : x + width]


def _netcdf(task: dict[str, Any]) -> Read:
    """xarray on one file per variable, without Dask, which would only add to the time of a single window."""
    dataset = _open_netcdf(task)
    steps, height, width = task["shape"]

    def read(t: int, y: int, x: int) -> NDArray[np.float32]:
        window = dataset.isel(
            valid_time=slice(t, t + steps), latitude=slice(y, y + height), longitude=slice(x, x + width)
        )
        return _stacked(window, task)

    return read


def _xbatcher_netcdf(task: dict[str, Any]) -> Read:
    """xbatcher on the same files, opened in the same way."""
    batches = _batches(_open_netcdf(task), "valid_time", task)
    return lambda t, y, x: _stacked(batches(t, y, x), task)


def _xbatcher_zarr(task: dict[str, Any]) -> Read:
    """xbatcher on our store, opened by xarray without Dask."""
    import xarray as xr

    batches = _batches(xr.open_zarr(task["path"], chunks=None)[["data"]], "time", task)
    return lambda t, y, x: batches(t, y, x)["data"].values


READERS = {
    "millrace": _millrace,
    "memmap": _memmap,
    "zarr": _zarr,
    "netcdf": _netcdf,
    "xbatcher_netcdf": _xbatcher_netcdf,
    "xbatcher_zarr": _xbatcher_zarr,
}


def _open_netcdf(task: dict[str, Any]) -> Any:
    import xarray as xr

    files = [xr.open_dataset(Path(task["path"]) / f"{name}-000.nc", cache=False) for name in task["variables"]]
    return xr.merge(files, compat="override", join="exact")


def _stacked(window: Any, task: dict[str, Any]) -> NDArray[np.float32]:
    out = np.empty((task["array"][1], *task["shape"]), np.float32)
    first = 0
    for name in task["variables"]:
        values = window[name].values
        if values.ndim == 3:
            values = values[:, None]
        out[first : first + values.shape[1]] = values.transpose(1, 0, 2, 3)
        first += values.shape[1]
    return out


def _batches(dataset: Any, time_dimension: str, task: dict[str, Any]) -> Callable[[int, int, int], Any]:
    """Return a function from positions to batches, which xbatcher numbers in C order of the half-overlapping grid."""
    import xbatcher

    lengths = dict(zip((time_dimension, "latitude", "longitude"), task["shape"], strict=True))
    overlaps = {name: length // 2 for name, length in lengths.items()}
    generator = xbatcher.BatchGenerator(dataset, lengths, overlaps, preload_batch=False)
    strides = list(overlaps.values())
    steps, _, rows, columns = task["array"]
    counts = [
        (n - length) // stride + 1
        for n, length, stride in zip((steps, rows, columns), lengths.values(), strides, strict=True)
    ]

    def batch(t: int, y: int, x: int) -> Any:
        index = np.ravel_multi_index([p // s for p, s in zip((t, y, x), strides, strict=True)], counts)
        return generator[int(index)].load()

    return batch


def serve(task: dict[str, Any]) -> None:
    """Answer requests until standard input ends."""
    read = READERS[task["reader"]](task)
    for line in sys.stdin:
        request = json.loads(line)
        if "check" in request:
            answer: Any = [_digest(read(*position), task) for position in request["check"]]
        else:
            answer = _round(read, request["positions"], request["seconds"])
        print(json.dumps(answer), flush=True)


def _digest(window: NDArray[np.float32], task: dict[str, Any]) -> str:
    steps, height, width = task["shape"]
    channels = task["array"][1]
    time_first = task["reader"] in TIME_FIRST
    shape = (steps, channels, height, width) if time_first else (channels, steps, height, width)
    if window.dtype != np.float32 or window.shape != shape or not window.flags.c_contiguous:
        raise TypeError(f"{task['reader']} returns {window.dtype} {window.shape}, or not contiguous")
    if isinstance(window, np.memmap) or isinstance(window.base, np.memmap):
        raise TypeError(f"{task['reader']} returns a view, not a copy")
    return hashlib.sha256((window if time_first else window.swapaxes(0, 1)).tobytes()).hexdigest()


def _round(read: Read, positions: list[list[int]], seconds: float) -> dict[str, float]:
    done = 0
    end = time.perf_counter() + seconds
    with Stopwatch() as watch:
        for t, y, x in positions:
            read(t, y, x)
            done += 1
            if done >= 8 and time.perf_counter() > end:
                break
    return {"windows": done, **watch.as_json()}


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
