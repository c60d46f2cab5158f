"""Turning raw NetCDF into a store.

Six days of 17 channels, hourly on a half-degree global grid, one NetCDF file per variable and day with the compression
that the Climate Data Store uses. Each subject starts anew in every round, in its own process with its imports done;
source files are in the page cache.

Ours is everything from unknown files to a verified store: hashing of the raw files, catalog, ingest with checks and
statistics, the SHA-256 of every shard, and flushing to disk; with two worker processes, whose start and imports count
too, and once more in one process. The peer of the first is plain `xarray.open_mfdataset(...).to_zarr(...)` with the
same chunks, shards and codec and two threads; both stores must hold the same bits. The ceiling of the second is netCDF4
decoding the same files one after the other in one process, keeping nothing: two processes that share a core's caches
spend more CPU-seconds on the same work, so like is compared with like.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from benchmarks.bench import Bench, interleave, median_ratio, rounded
from benchmarks.figure import Figure
from benchmarks.process import run_program
from benchmarks.raw_files import VARIABLES, RawData, make_raw_files, read_all
from storage.window_store import WindowStore

WORKERS = 2
PEER_STORE = "xarray.zarr"


def run(bench: Bench) -> list[Figure]:
    """Measure ingest, xarray's way, and decoding alone."""
    size = (91, 180, 2.0) if bench.quick else (361, 720, 0.5)
    data = RawData(*size, steps=24, periods=2 if bench.quick else 6)
    raw, rounds = bench.work / "raw", 2 if bench.quick else 3
    bench.say(f"making {data.megabytes:.0f} MB of fields")
    make_raw_files(data, raw)
    file_megabytes = read_all(raw) / 1e6
    bench.say(f"{rounds} rounds")
    results = interleave(rounds, _subjects(bench.work, raw))
    _require_equal(bench.work)
    detail = {"data": data.describe(), "file_megabytes": round(file_megabytes), "workers": WORKERS, "rounds": results}
    return _figures(bench, data.megabytes, results, detail)


def _subjects(work: Path, raw: Path) -> dict[str, Callable[[], dict[str, float]]]:
    def millrace(workers: str) -> dict[str, float]:
        root = work / "assets"
        shutil.rmtree(root, ignore_errors=True)
        answer = run_program("ingest_millrace", raw=str(raw), root=str(root), workers=workers)
        parts = {f"{part}_{kind}": answer[part][kind] for part in ("hashing", "stages") for kind in ("cpu", "wall")}
        return {kind: parts[f"hashing_{kind}"] + parts[f"stages_{kind}"] for kind in ("cpu", "wall")} | parts

    def xarray() -> dict[str, float]:
        store = work / PEER_STORE
        shutil.rmtree(store, ignore_errors=True)
        return run_program("ingest_xarray", raw=str(raw), store=str(store), threads=WORKERS)

    def decode() -> dict[str, float]:
        return run_program("decode_netcdf", raw=str(raw))

    return {
        "millrace": lambda: millrace(str(WORKERS)),
        "xarray": xarray,
        "millrace_inline": lambda: millrace("inline"),
        "decode": decode,
    }


def _require_equal(work: Path) -> None:
    (ours,) = (work / "assets" / "era5_windows").glob("*/zarr.json")
    store = WindowStore.open(ours.parent)
    peer = {name: zarr.open_array(work / PEER_STORE / name, mode="r") for name in VARIABLES}
    steps, slab = len(store.time), store.geometry.layout.chunk_time
    for first in range(0, steps, slab):
        box = store.read(first, 0, 0, (min(slab, steps - first), *store.geometry.plane)).swapaxes(0, 1)
        theirs = [
            np.asarray(array[first : first + slab]).reshape(len(box), -1, *box.shape[2:]) for array in peer.values()
        ]
        if not np.array_equal(box.view(np.uint32), np.concatenate(theirs, 1).view(np.uint32)):
            raise RuntimeError("the two stores hold different values; there is nothing to compare")


def _figures(
    bench: Bench, megabytes: float, results: dict[str, list[dict[str, float]]], detail: dict[str, Any]
) -> list[Figure]:
    def rates(who: str, kind: str) -> list[float]:
        return [megabytes / result[kind] for result in results[who]]

    def note(who: str, label: str) -> str:
        cpu, wall = (statistics.median(rates(who, kind)) for kind in ("cpu", "wall"))
        return f"{label}: {cpu:.0f} MB per CPU-second, {wall:.0f} MB per second of wall time."

    def figure(name: str, ours: str, peer: str, aim: float, words: str) -> Figure:
        by_wall = {
            who: median_ratio(rates(who, "wall"), rates(peer, "wall")) for who in ("millrace", "millrace_inline")
        }
        unhashed = median_ratio(rates(ours, "stages_cpu"), rates(peer, "cpu"))
        return bench.figure(
            name,
            what="Ingest of raw NetCDF, MB of float32 per CPU-second",
            value=rounded(median_ratio(rates(ours, "cpu"), rates(peer, "cpu"))),
            unit="x",
            aim=f">= {aim}",
            peer=words,
            peer_value=rounded(statistics.median(rates(peer, "cpu"))),
            peer_unit="MB per CPU-second",
            notes=(
                note("millrace", "Millrace, two workers"),
                note("millrace_inline", "Millrace, one process"),
                note(peer, words),
                f"By wall time {by_wall['millrace']:.3g} x with two workers, {by_wall['millrace_inline']:.3g} x with "
                f"one process; by CPU time without the hashing of raw files {unhashed:.3g} x.",
            ),
            detail=detail,
        )

    return [
        figure(
            "ingest_vs_xarray",
            "millrace",
            "xarray",
            2,
            "xarray open_mfdataset and to_zarr, same chunks, shards and codec",
        ),
        figure("ingest_vs_decode", "millrace_inline", "decode", 0.6, "netCDF4 decoding alone"),
    ]
