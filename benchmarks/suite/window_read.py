"""Reading training windows at random.

Windows of 8 steps x 17 channels x 64 x 64 at random positions of the half-overlapping grid (strides 4, 32, 32), as
training reads them, out of 240 hourly steps of 256 x 512 values. The store has its default layout and was made by the
ingest stages. Every reader has a process of its own; files are in the page cache; rounds are interleaved. Each window
is copied into a contiguous float32 array, and before the clock starts all readers must return the same bits.

xarray opens one NetCDF file per variable without Dask, which would only add to the time of a single window. With fewer
steps whole variables would fit into the 64 MB that the library caches for each, as they do in no real training set.
xbatcher is measured both on those files and on our own store opened with `xarray.open_zarr`; the faster one counts, and
its preparation (a list of all windows) is not timed. The ceiling is a `np.memmap` of the same array, uncompressed.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np

from benchmarks.bench import Bench, interleave, median_ratio, rounded
from benchmarks.environment import PEERS, peer_python
from benchmarks.figure import Figure
from benchmarks.process import Program, run_program
from benchmarks.raw_files import VARIABLES, RawData, make_raw_files, raw_path

WINDOW = (8, 64, 64)
STRIDES = (4, 32, 32)
AIMS = {
    "netcdf": (10, "xarray, one NetCDF file per variable"),
    "zarr": (5, "zarr-python on the same store"),
    "xbatcher": (10, "xbatcher, the faster of the same store and NetCDF"),
    "memmap": (0.4, "np.memmap of the same array, uncompressed"),
}


def run(bench: Bench) -> list[Figure]:
    """Measure our reader and its peers."""
    data = RawData(256, 512, 0.25, steps=16 if bench.quick else 240, periods=1)
    rounds, seconds = (2, 0.2) if bench.quick else (9, 1.5)
    paths = _prepare(bench, data)
    random = np.random.default_rng(0)
    with ExitStack() as stack:
        programs = {
            name: stack.enter_context(Program("window_reader", _task(name, path, data), _python(name)))
            for name, path in paths.items()
        }
        _require_equal(programs, _positions(data, random, 24))
        bench.say(f"{rounds} rounds of {seconds} s for each of {', '.join(programs)}")
        reads = {
            name: lambda program=program: program.ask({"positions": _positions(data, random, 8000), "seconds": seconds})
            for name, program in programs.items()
        }
        interleave(1, reads)
        results = interleave(rounds, reads)
    return _figures(bench, data, results, seconds)


def _prepare(bench: Bench, data: RawData) -> dict[str, Path]:
    raw, array = bench.work / "raw", bench.work / "array.f4"
    bench.say(f"making {data.megabytes:.0f} MB of fields")
    make_raw_files(data, raw)
    store = Path(run_program("ingest_millrace", raw=str(raw), root=str(bench.work / "assets"), workers="2")["store"])
    _write_memmap(data, raw, array)
    return {
        "millrace": store,
        "memmap": array,
        "zarr": store,
        "netcdf": raw,
        "xbatcher_netcdf": raw,
        "xbatcher_zarr": store,
    }


def _write_memmap(data: RawData, raw: Path, path: Path) -> None:
    array = np.memmap(path, np.float32, "w+", shape=data.shape)
    channel = 0
    for name in VARIABLES:
        with netCDF4.Dataset(raw_path(raw, name, 0)) as file:
            values = file[name][:].filled(np.nan).reshape(data.shape[0], -1, data.rows, data.columns)
        array[:, channel : channel + values.shape[1]] = values
        channel += values.shape[1]
    array.flush()


def _task(reader: str, path: Path, data: RawData) -> dict[str, Any]:
    return {
        "reader": reader,
        "path": str(path),
        "array": data.shape,
        "shape": WINDOW,
        "variables": list(VARIABLES),
    }


def _python(reader: str) -> Path | None:
    return peer_python("xbatcher") if reader.startswith("xbatcher") else None


def _positions(data: RawData, random: np.random.Generator, count: int) -> list[list[int]]:
    lengths = (data.shape[0], data.rows, data.columns)
    axes = [
        stride * random.integers(0, (length - size) // stride + 1, count)
        for length, size, stride in zip(lengths, WINDOW, STRIDES, strict=True)
    ]
    return np.stack(axes, axis=1).tolist()


def _require_equal(programs: dict[str, Program], positions: list[list[int]]) -> None:
    digests = {name: program.ask({"check": positions}) for name, program in programs.items()}
    for name, found in digests.items():
        if found != digests["memmap"]:
            raise RuntimeError(f"{name} returns other windows than np.memmap; there is nothing to compare")


def _figures(bench: Bench, data: RawData, results: dict[str, list[Any]], seconds: float) -> list[Figure]:
    rate = {
        kind: {name: [r["windows"] / r[kind] for r in rounds] for name, rounds in results.items()}
        for kind in ("cpu", "wall")
    }
    faster = max(("xbatcher_zarr", "xbatcher_netcdf"), key=lambda name: statistics.median(rate["cpu"][name]))
    peers = {"netcdf": "netcdf", "zarr": "zarr", "xbatcher": faster, "memmap": "memmap"}
    settings = {
        "data": data.describe(),
        "window": WINDOW,
        "strides": STRIDES,
        "seconds_per_round": seconds,
        "peers": PEERS["xbatcher"].packages[0],
    }
    figure = partial(_figure, bench, rate, {"rounds": results, **settings})
    return [figure(name, peer) for name, peer in peers.items()]


def _figure(
    bench: Bench, rate: dict[str, dict[str, list[float]]], detail: dict[str, Any], name: str, peer: str
) -> Figure:
    aim, words = AIMS[name]
    cpu, wall = ({who: statistics.median(rate[kind][who]) for who in ("millrace", peer)} for kind in ("cpu", "wall"))
    kept = {**detail, "rounds": {who: detail["rounds"][who] for who in ("millrace", peer)}, "measured_peer": peer}
    return bench.figure(
        f"window_read_vs_{name}",
        what="Random 8 x 17 x 64 x 64 windows per CPU-second",
        value=rounded(median_ratio(rate["cpu"]["millrace"], rate["cpu"][peer])),
        unit="x",
        aim=f">= {aim}",
        peer=words,
        peer_value=rounded(cpu[peer]),
        peer_unit="windows per CPU-second",
        notes=(
            f"Millrace {cpu['millrace']:.0f}, {peer.replace('_', ' on ')} {cpu[peer]:.3g} windows per CPU-second.",
            f"By wall time {median_ratio(rate['wall']['millrace'], rate['wall'][peer]):.3g} x: "
            f"{wall['millrace']:.0f} against {wall[peer]:.3g} windows per second.",
        ),
        detail=kept,
    )
