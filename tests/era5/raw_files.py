"""ERA5-like NetCDF files as people have them, and the whole way from such files to an opened store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray as xr

from configs.weather import Recipe, StoreLayout
from storage.window_store import write_metadata
from tasks.era5.block import BlockReport, geometry, list_blocks, write_block
from tasks.era5.catalog import FileScan, scan_file
from tasks.era5.source_files import SourceFiles
from tasks.era5.timeline import Timeline, build_timeline

LATITUDE = np.arange(50.0, 47.0, -0.5)
LONGITUDE = np.arange(5.0, 9.0, 0.5)
LAYOUT = StoreLayout(chunk_space=4, shard_chunks=(1, 2))


def hours(start: str, count: int, step: int = 1) -> np.ndarray:
    return np.datetime64(start, "h").astype("datetime64[s]") + step * 3600 * np.arange(count)


def field(steps: int, *levels: int, seed: int = 0, grid: tuple[int, int] = (6, 8)) -> np.ndarray:
    """Random float32 values (steps, levels..., rows, columns) with some NaN."""
    random = np.random.default_rng(seed)
    values = random.normal(280, 10, (steps, *levels, *grid)).astype(np.float32)
    values[random.random(values.shape) < 0.05] = np.nan
    return values


def write_cds(
    path: Path,
    variables: Mapping[str, np.ndarray],
    times: np.ndarray,
    *,
    latitude: np.ndarray = LATITUDE,
    longitude: np.ndarray = LONGITUDE,
    levels: Sequence[int] = (),
    expver: str | Sequence[str] = "0001",
    units: str = "K",
    step_type: str = "instant",
    chunks: Sequence[int] | None = None,
) -> Path:
    """Write a file as the new Climate Data Store does: `valid_time`, `number`, `expver` strings along time."""
    with netCDF4.Dataset(path, "w") as file:
        _coordinate(file, "latitude", latitude, units="degrees_north")
        _coordinate(file, "longitude", longitude, units="degrees_east")
        seconds = times.astype("datetime64[s]").astype(np.int64)
        _coordinate(file, "valid_time", seconds, units="seconds since 1970-01-01", calendar="proleptic_gregorian")
        if levels:
            _coordinate(file, "pressure_level", np.array(levels, float), units="hPa", standard_name="air_pressure")
        file.createVariable("number", "i8")[...] = 0
        versions = [expver] * len(times) if isinstance(expver, str) else expver
        file.createVariable("expver", str, ("valid_time",))[:] = np.array(versions, object)
        dims = ("valid_time", *(("pressure_level",) if levels else ()), "latitude", "longitude")
        for name, values in variables.items():
            made = file.createVariable(
                name, "f4", dims, fill_value=np.nan, zlib=True, complevel=1, shuffle=True, chunksizes=chunks
            )
            made.setncatts({"units": units, "long_name": name, "GRIB_stepType": step_type})
            made.coordinates = "number valid_time latitude longitude expver"
            made[:] = values
    return path


def write_classic(
    path: Path,
    variables: Mapping[str, np.ndarray],
    times: np.ndarray,
    *,
    latitude: np.ndarray = LATITUDE,
    longitude: np.ndarray = LONGITUDE,
    expver: Sequence[int] = (),
    units: str = "K",
) -> Path:
    """Write int16-packed NetCDF-3 as the old Climate Data Store did; with `expver`, values are (time, expver, ...)."""
    with netCDF4.Dataset(path, "w", format="NETCDF3_64BIT_OFFSET") as file:
        _coordinate(file, "longitude", longitude.astype("f4"), units="degrees_east")
        _coordinate(file, "latitude", latitude.astype("f4"), units="degrees_north")
        if expver:
            _coordinate(file, "expver", np.array(expver, "i4"))
        hour = (times.astype("datetime64[h]") - np.datetime64("1900-01-01T00", "h")).astype("i4")
        _coordinate(file, "time", hour, units="hours since 1900-01-01 00:00:00.0", calendar="gregorian")
        dims = ("time", *(("expver",) if expver else ()), "latitude", "longitude")
        for name, values in variables.items():
            made = file.createVariable(name, "i2", dims, fill_value=np.int16(-32767))
            offset, scale = float(np.nanmean(values)), float(np.nanmax(np.abs(values - np.nanmean(values)))) / 32700
            made.setncatts({"scale_factor": scale, "add_offset": offset, "missing_value": np.int16(-32767)})
            made.setncatts({"units": units, "long_name": name})
            made.set_auto_maskandscale(False)
            packed = np.round((np.nan_to_num(values, nan=offset) - offset) / scale).astype("i2")
            made[:] = np.where(np.isnan(values), np.int16(-32767), packed)
    return path


def _coordinate(file: netCDF4.Dataset, name: str, values: np.ndarray, **attributes: str) -> None:
    file.createDimension(name, len(values))
    variable = file.createVariable(name, values.dtype, (name,))
    variable.setncatts(attributes)
    variable[:] = values


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Scanned:
    """Files as the ingest stage sees them."""

    scans: list[FileScan]
    names: dict[str, str]
    paths: dict[str, Path]

    def timeline(self, recipe: Recipe | None = None, layout: StoreLayout = LAYOUT) -> Timeline:
        return build_timeline(self.scans, self.names, recipe or Recipe(), layout)


def scan(*paths: Path, members: Path | None = None) -> Scanned:
    """Scan files; members of archives go to `members`, beside the first file when absent."""
    folder = members or paths[0].parent / "members"
    shas = [sha256(path) for path in paths]
    scans = [scan_file(path, sha, folder) for path, sha in zip(paths, shas, strict=True)]
    places = dict(zip(shas, paths, strict=True))
    places |= {m.sha256: folder / f"{m.sha256}.nc" for s in scans for m in s.members if m.entry}
    return Scanned(scans, {sha: path.name for sha, path in zip(shas, paths, strict=True)}, places)


@dataclass
class Store:
    """A written store, opened with xarray, and what its blocks reported."""

    data: xr.Dataset
    reports: list[BlockReport]

    def total(self, count: str) -> int:
        return sum(report.counts[count] for report in self.reports)


def ingest(folder: Path, *paths: Path, recipe: Recipe | None = None, layout: StoreLayout = LAYOUT) -> Store:
    """Write the store of some files below `folder` and open it with plain xarray."""
    scanned = scan(*paths, members=folder / "members")
    timeline = scanned.timeline(recipe, layout)
    store = folder / "store"
    with closing(SourceFiles(scanned.paths)) as files:
        reports = [
            write_block(timeline, layout, files, store, block, folder / "scratch")
            for block in list_blocks(timeline, layout)
        ]
    write_metadata(store, geometry(timeline, layout), timeline.times, {})
    return Store(xr.open_zarr(store, chunks=None), reports)


def recipe(*variables: str | Mapping[str, Any]) -> Recipe:
    return Recipe.model_validate({"variables": variables})


def totals(per_hour: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Accumulate hourly amounts since 00 UTC as ERA5-Land does; 00 UTC holds the day before."""
    sums = np.zeros_like(per_hour, dtype=np.float64)
    for i, time in enumerate(times.astype("datetime64[h]").astype(int)):
        sums[i] = per_hour[i] + (sums[i - 1] if i and time % 24 != 1 else 0)
    return sums.astype(np.float32)


def sunshine(times: np.ndarray, seed: int = 0, sunrise: int = 6) -> np.ndarray:
    """Hourly amounts with a daily cycle, as radiation has."""
    hour = times.astype("datetime64[h]").astype(int) % 24
    cycle = np.clip(np.sin((hour - sunrise) / 12 * np.pi), 0, None)[:, None, None]
    clouds = np.random.default_rng(seed).uniform(0.9, 1, (len(times), 6, 8))
    return (3.6e6 * cycle * clouds).astype(np.float32)


def ssrd(kind: str, rate: bool = True) -> Recipe:
    return recipe({"variable": "ssrd", "accumulation": kind, "rate": rate})


def stored(store: Store, channel: str) -> xr.DataArray:
    """Return the values of a channel."""
    return store.data.data.sel(channel=channel)
