"""Small planes are read and converted in company, and yet every byte is that of a plain reading, plane by plane."""

from __future__ import annotations

from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numcodecs.bitround import BitRound

from configs.weather import StoreLayout, VariableRecipe
from storage.window_store import BlockWriter, write_metadata
from tasks.era5 import block, rows
from tasks.era5.block import geometry, list_blocks, write_block
from tasks.era5.source_files import SourceFiles
from tests.era5.raw_files import (
    LATITUDE,
    field,
    hours,
    ingest,
    recipe,
    scan,
    sha256,
    write_cds,
    write_classic,
)

START = "2024-06-01T05"
LEVELS = (1000, 850, 500, 200)
LAYOUT = StoreLayout(chunk_time=4, chunk_space=4, shard_time=24, shard_chunks=(1, 2))
RECIPE = recipe(
    {"variable": "t", "levels": [200, 850, 1000]},
    {"variable": "ssrd", "accumulation": "since_00utc", "rate": True},
    {"variable": "tp", "accumulation": "hourly", "rate": True},
    {"variable": "sst", "nan": 271.5},
    {"variable": "u10", "keepbits": 7},
    "msl",
)
Plane = tuple[str, int, np.ndarray]
"""SHA-256 of the file, version, values."""


def times(first: int, stop: int) -> np.ndarray:
    return hours(START, stop)[first:]


def sums(first: int, stop: int) -> np.ndarray:
    """Radiation since 00 UTC; it grows through the day."""
    hour = (times(first, stop).astype("datetime64[h]").astype(int) - 1) % 24 + 1
    return (np.float32(1e5) * hour[:, None, None] * (1 + np.random.default_rng(3).random((6, 8)))).astype(np.float32)


def chunk_shape(kind: str, *lengths: int) -> tuple[int, ...] | None:
    """Return the chunks of a variable with these lengths before its rows and columns; None lets the library choose."""
    if kind == "chosen by the library":
        return None
    first = {"one plane": [1] * len(lengths), "several planes": [7, 2][: len(lengths)], "everything": lengths}[kind]
    return (*first, 6, 8)


def write_raw(folder: Path, chunks: str) -> list[Path]:
    """Write files with overlaps, gaps, ERA5T, NaN, odd borders, reversed time and a reversed grid."""

    def cds(name: str, values: np.ndarray, when: np.ndarray, **options: Any) -> Path:
        variable = name.split("-")[0]
        shape = chunk_shape(chunks, len(when), *values.shape[1:-2])
        return write_cds(folder / f"{name}.nc", {variable: values}, when, chunks=shape, **options)

    temperature, wind = field(100, 4, seed=1), field(100, seed=5)
    sunshine, kept = sums(0, 96), np.delete(np.arange(96), [40, 41])
    return [
        cds("t-a", temperature[:35], times(0, 35), levels=LEVELS, expver=["0001"] * 20 + ["0005"] * 15),
        cds("t-b", temperature[20:61], times(20, 61), levels=LEVELS),
        cds("t-replaced", field(15, 4, seed=9), times(20, 35), levels=LEVELS, expver="0005"),
        cds("t-backwards", temperature[:69:-1], times(70, 100)[::-1], levels=LEVELS),
        cds("t-again", temperature[75:90], times(75, 90), levels=LEVELS),
        cds("ssrd", sunshine[kept], times(0, 96)[kept], step_type="accum"),
        cds("tp", np.abs(field(90, seed=2)), times(3, 93), step_type="accum", latitude=LATITUDE[::-1]),
        cds("sst", field(50, seed=4), times(10, 60)),
        cds("u10-even", wind[::2], times(0, 100)[::2]),
        cds("u10-odd", wind[1::2], times(0, 100)[1::2]),
        two_versions(folder / "msl.nc"),
    ]


@pytest.fixture(scope="module", params=["chosen by the library", "one plane", "several planes", "everything"])
def raw(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_raw(tmp_path_factory.mktemp("raw"), request.param)


def two_versions(path: Path) -> Path:
    """Write a classic file with an expver dimension, whose layers are filled in turn."""
    values = np.full((100, 2, 6, 8), np.nan, np.float32)
    values[:60, 0] = field(60, seed=6)
    values[50:, 1] = field(50, seed=7)
    values[30] = np.nan  # neither has it
    return write_classic(path, {"msl": values}, times(0, 100), expver=(1, 5))


def plain_reading(paths: list[Path], variable: str, level: int | None) -> dict[int, Plane]:
    """Return the chosen plane of every hour: final before ERA5T, then by the SHA-256 of the file."""
    found: dict[int, Plane] = {}
    for path in sorted(paths, key=sha256):
        with xr.open_dataset(path, decode_timedelta=False) as data:
            if variable not in data:
                continue
            data = data.rename({n: "time" for n in ("valid_time",) if n in data.dims}).sortby(
                "latitude", ascending=False
            )
            values = data[variable] if level is None else data[variable].sel(pressure_level=level)
            layers = {1: 1, 5: 5} if "expver" in data.dims else {0: 0}
            for step, layer in product(range(data.sizes["time"]), layers):
                one = values.isel(time=step)
                plane = (one.sel(expver=layer) if layer else one).values.astype(np.float32)
                version = layer or int(data.expver.values[step])
                hour = int(data.time.values[step].astype("datetime64[h]").astype(int))
                absent = layer and np.isnan(plane).all()
                if not absent and (hour not in found or (found[hour][1], version) == (5, 1)):
                    found[hour] = sha256(path), version, plane
    return found


def converted(planes: dict[int, Plane], wanted: VariableRecipe) -> dict[int, Plane]:
    """Apply a recipe to each plane by itself."""
    return {
        hour: (sha, version, plane)
        for hour, (sha, version, raw) in planes.items()
        if (plane := _convert(planes, hour, raw, wanted)) is not None
    }


def _convert(planes: dict[int, Plane], hour: int, raw: np.ndarray, wanted: VariableRecipe) -> np.ndarray | None:
    if wanted.accumulation == "hourly":
        return raw / np.float32(3600)
    if wanted.accumulation == "since_00utc":
        if hour % 24 == 1:
            return raw / np.float32(3600)
        return (raw - planes[hour - 1][2]) / np.float32(3600) if hour - 1 in planes else None
    if wanted.keepbits:
        rounded = BitRound(wanted.keepbits).decode(BitRound(wanted.keepbits).encode(raw)).reshape(raw.shape)
        return np.where(np.isfinite(raw), rounded, raw)
    return raw if wanted.nan == "keep" else np.where(np.isnan(raw), np.float32(wanted.nan), raw)


def write_plainly(folder: Path, paths: list[Path]) -> None:
    """Write the store of some files from planes that were read one by one with xarray."""
    timeline = scan(*paths).timeline(RECIPE, LAYOUT)
    shape, length = geometry(timeline, LAYOUT), LAYOUT.shard_time
    chosen = [converted(plain_reading(paths, c.variable, c.level), c.recipe) for c in timeline.channels]
    for number in list_blocks(timeline, LAYOUT):
        data = np.full((length, len(chosen), *shape.plane), np.nan, np.float32)
        valid = np.zeros(data.shape[:2], bool)
        versions, sources = valid.astype(np.uint8), valid.astype(np.uint64)
        for step, (channel, planes_of) in product(range(length), enumerate(chosen)):
            if plane := planes_of.get(timeline.first_slot + number * length + step):
                sha, versions[step, channel], data[step, channel] = plane
                valid[step, channel], sources[step, channel] = True, int(sha[:16], 16)
        with BlockWriter(folder, shape, number) as writer:
            for first in range(0, length, LAYOUT.chunk_time):
                writer.write_slab(first, data[first : first + LAYOUT.chunk_time])
            writer.finish(valid, versions, sources)
    write_metadata(folder, shape, timeline.times, {})


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_store_has_the_bytes_of_a_plain_reading(tmp_path: Path, raw: list[Path]) -> None:
    store = ingest(tmp_path / "ours", *raw, recipe=RECIPE, layout=LAYOUT)
    write_plainly(tmp_path / "plain", raw)
    assert content(tmp_path / "ours" / "store") == content(tmp_path / "plain")
    found = {name: store.total(name) for name in ("compared", "preliminary", "without_previous")}
    assert found == {"compared": 3 * 15, "preliminary": 40, "without_previous": 2}
    assert not store.data.valid.all()


@pytest.mark.parametrize("company", [0, 1000], ids="{} bytes go together".format)
@pytest.mark.parametrize("memory", [0, 2**29], ids="{} bytes of memory".format)
def test_how_many_planes_go_together_changes_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: list[Path], company: int, memory: int
) -> None:
    ingest(tmp_path / "usual", *raw, recipe=RECIPE, layout=LAYOUT)
    monkeypatch.setattr(block, "_RUN_BYTES", company)
    monkeypatch.setattr(block, "_MEMORY_BYTES", memory)
    monkeypatch.setattr(rows, "SMALL_PLANE_BYTES", company)
    ingest(tmp_path / "changed", *reversed(raw), recipe=RECIPE, layout=LAYOUT)
    assert content(tmp_path / "changed" / "store") == content(tmp_path / "usual" / "store")


def test_small_planes_are_read_in_few_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, levels = 48, (1000, 850, 500)
    values, when = field(steps, 3), hours("2024-01-01", steps)
    path = write_cds(tmp_path / "t.nc", {"t": values}, when, levels=levels, chunks=(1, 1, 6, 8))
    scanned, reads = scan(path), []
    timeline, read = scanned.timeline(layout=LAYOUT), SourceFiles.read

    def counting(files: SourceFiles, *what: object) -> np.ndarray:
        reads.append(what)
        return read(files, *what)  # type: ignore[arg-type]

    monkeypatch.setattr(SourceFiles, "read", counting)
    with closing(SourceFiles(scanned.paths)) as files:
        for number in list_blocks(timeline, LAYOUT):
            write_block(timeline, LAYOUT, files, tmp_path / "store", number, tmp_path / "scratch")
    assert len(reads) == 2
