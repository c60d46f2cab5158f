"""Turning raw NetCDF of a small region into a store, where planes cost more to handle than to read.

74 channels of 3 x 3 cells, 1032 hours, one NetCDF file per variable: 76,368 planes of 36 bytes. The files come in three
kinds: contiguous, as xarray writes them; compressed in the one chunk that the NetCDF library chooses; compressed with a
chunk for every plane. The slowest kind counts. Ours is everything from unknown files to a verified store, as in
`ingest_speed`, in one process; the peer is xarray's `open_mfdataset(...).to_zarr(...)` with the same chunks, shards and
codec and one thread. Both stores must hold the same bits.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import zarr

from benchmarks.bench import Bench, interleave, rounded
from benchmarks.figure import Figure
from benchmarks.process import run_program
from benchmarks.small_files import LEVELS, SmallFiles, Storage, make_small_files
from storage.window_store import WindowStore

KINDS: tuple[Storage, ...] = get_args(Storage)


def run(bench: Bench) -> list[Figure]:
    """Measure ingest and xarray's way for every kind of files."""
    files = {kind: SmallFiles(3, 3, 48 if bench.quick else 1032, kind) for kind in KINDS}
    planes, rounds = files["contiguous"].planes, 1 if bench.quick else 3
    for kind, data in files.items():
        make_small_files(data, bench.work / kind)
    bench.say(f"{rounds} rounds of {planes:,} planes")
    subjects = {f"{who}, {kind}": subject for kind in KINDS for who, subject in _subjects(bench.work, kind).items()}
    results = interleave(rounds, subjects)
    for kind in KINDS:
        _require_equal(bench.work, kind)
    return [_figure(bench, results, planes)]


def _subjects(work: Path, kind: str) -> dict[str, Callable[[], dict[str, float]]]:
    def millrace() -> dict[str, float]:
        root = _root(work, kind)
        shutil.rmtree(root, ignore_errors=True)
        answer = run_program("ingest_millrace", raw=str(work / kind), root=str(root), workers="inline")
        return {time: answer["hashing"][time] + answer["stages"][time] for time in ("cpu", "wall")}

    def xarray() -> dict[str, float]:
        store = _peer_store(work, kind)
        shutil.rmtree(store, ignore_errors=True)
        return run_program("ingest_xarray", raw=str(work / kind), store=str(store), threads=1)

    return {"millrace": millrace, "xarray": xarray}


def _root(work: Path, kind: str) -> Path:
    return work / f"assets, {kind}"


def _peer_store(work: Path, kind: str) -> Path:
    return work / f"{kind}.zarr"


def _require_equal(work: Path, kind: str) -> None:
    (ours,) = (_root(work, kind) / "era5_windows").glob("*/zarr.json")
    store = WindowStore.open(ours.parent)
    values = store.read(0, 0, 0, (len(store.time), *store.geometry.plane))
    for index, channel in enumerate(store.channels):
        name, _, level = channel.partition("@")
        theirs = np.asarray(zarr.open_array(_peer_store(work, kind) / name, mode="r")[:])
        if not np.array_equal(values[index], theirs[:, LEVELS.index(int(level))] if level else theirs):
            raise RuntimeError(f"the two stores hold different values of {channel}; there is nothing to compare")


def _figure(bench: Bench, results: Mapping[str, list[dict[str, float]]], planes: int) -> Figure:
    def cost(who: str, kind: str, time: str = "cpu") -> float:
        return 1000 / planes * statistics.median(result[time] for result in results[f"{who}, {kind}"])

    def note(kind: str) -> str:
        ours, theirs = (f"{cost(who, kind):.3f} ({cost(who, kind, 'wall'):.3f})" for who in ("millrace", "xarray"))
        return f"Files {kind}: {ours} ms of CPU (wall) time per plane, xarray {theirs} ms."

    slowest = max(KINDS, key=lambda kind: cost("millrace", kind))
    return bench.figure(
        "ingest_small_planes_ms",
        what=f"Ingest of {planes:,} planes of 3 x 3 cells, CPU time per plane",
        value=rounded(cost("millrace", slowest)),
        unit="ms",
        aim="<= 0.1",
        peer="xarray open_mfdataset and to_zarr, same chunks, shards and codec",
        peer_value=rounded(cost("xarray", slowest)),
        peer_unit="ms",
        notes=tuple(note(kind) for kind in KINDS),
        detail={"planes": planes, "rounds": results},
    )
