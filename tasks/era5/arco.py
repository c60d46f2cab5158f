"""ERA5 from the public ARCO-ERA5 Zarr store, or any copy of it with the same layout, as NetCDF files.

A fetched file looks like one from the new Climate Data Store: dimensions valid_time, pressure_level, latitude
(from north) and longitude (from west, negative west of Greenwich where the area is), short GRIB names, float32,
and `expver` along valid_time: 0001 for final ERA5, 0005 for preliminary ERA5T. The same request on unchanged data
gives the same bytes.

The store's time axis runs far beyond its data; its attributes valid_time_start, valid_time_stop (last day of final
ERA5) and valid_time_stop_era5t (last day of all) say what is there.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import netCDF4
import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict

from configs.weather import ArcoSource
from storage.files import atomic_path
from tasks.era5.arco_names import ERA5_NAMES
from tasks.era5.periods import day_spans, month_spans

READ_BYTES = 256 * 2**20
"""Decoded Zarr chunks that are read at once; a single chunk may be larger, and is then read alone."""
CHUNK_BYTES = 4 * 2**20
"""Largest chunk of a written NetCDF variable."""
DEGREE_TOLERANCE = 1e-4
SINGLE_LEVEL = ("time", "latitude", "longitude")
PRESSURE_LEVELS = ("time", "level", "latitude", "longitude")


class ArcoPartition(BaseModel):
    """The days that make one file."""

    model_config = ConfigDict(frozen=True)

    id: str
    """`arco_2024-01`, or `arco_2024-01-31` where a file holds one day."""
    start: date
    """First day."""
    end: date
    """Last day, included."""


def arco_partitions(config: ArcoSource) -> list[ArcoPartition]:
    """Return the files of a source in the order of time: months of an area, days of the globe."""
    if config.area:
        spans, pattern = month_spans(config.start, config.end), "%Y-%m"
    else:
        spans, pattern = day_spans(config.start, config.end), "%Y-%m-%d"
    return [ArcoPartition(id=f"arco_{first.strftime(pattern)}", start=first, end=last) for first, last in spans]


def fetch_arco(partition: ArcoPartition, config: ArcoSource, target: Path) -> None:
    """Write one partition to `target`, which appears only when it is whole.

    Memory depends on the size of the area and of the store's chunks, not on the length of the period. The NetCDF
    library is not thread-safe: fetch from one thread per process. Variables, levels or days that the store does
    not have are a `ValueError` that names what it has; days are checked for the whole source, so that the first
    partition already fails.
    """
    with _open(config.url) as store:
        coverage = _coverage(store, config)
        arrays = [_array(store, name, config) for name in dict.fromkeys(config.variables)]
        box = _box(store, partition, config)
        with atomic_path(target) as temporary, netCDF4.Dataset(temporary, "w", format="NETCDF4") as file:
            _define_coordinates(file, box, coverage, with_levels=any("level" in a.dims for a in arrays))
            for array in arrays:
                _copy(array, box, file)


def _open(url: str) -> xr.Dataset:
    options = {"token": "anon"} if url.startswith(("gs://", "gcs://")) else None
    try:
        return xr.open_zarr(url, chunks=None, storage_options=options)
    except ImportError as error:
        raise ValueError(
            f"source.url {url} needs a package that is not installed ({error}): install it (for gs:// it is gcsfs), "
            "or give the folder of a local copy"
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(f"source.url {url} does not open as a Zarr store ({error}): correct it") from error


@dataclass(frozen=True, slots=True)
class _Coverage:
    """The days that a store holds, all included."""

    start: date
    final_until: date
    end: date


def _coverage(store: xr.Dataset, config: ArcoSource) -> _Coverage:
    names = ("valid_time_start", "valid_time_stop", "valid_time_stop_era5t")
    missing = [name for name in names if name not in store.attrs]
    if missing:
        raise ValueError(
            f"the store {config.url} lacks the attribute {', '.join(missing)}, so final and preliminary ERA5 cannot "
            "be told apart: use ARCO-ERA5 or a copy that keeps its attributes"
        )
    coverage = _Coverage(*(date.fromisoformat(str(store.attrs[name])[:10]) for name in names))
    if config.start < coverage.start or config.end > coverage.end:
        raise ValueError(
            f"the store {config.url} holds {coverage.start} to {coverage.end} (final ERA5 until "
            f"{coverage.final_until}), not {config.start} to {config.end}: change source.start or source.end"
        )
    return coverage


def _array(store: xr.Dataset, name: str, config: ArcoSource) -> xr.DataArray:
    if name not in store.data_vars:
        known = sorted(map(str, store.data_vars))
        long_names = [long for long, era5 in ERA5_NAMES.items() if era5.short == name and long in known]
        close = long_names or difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(known[:5])} and others"
        raise ValueError(f"source.variables: the store has no {name!r}: {hint}")
    array = store[name]
    if array.dims not in (SINGLE_LEVEL, PRESSURE_LEVELS):
        raise ValueError(
            f"source.variables: {name!r} has the dimensions {', '.join(map(str, array.dims))} instead of "
            f"{', '.join(PRESSURE_LEVELS)} (level may be missing): leave it out"
        )
    return array


@dataclass(frozen=True, slots=True)
class _Box:
    """Positions in the store along each dimension, in the order of the file, and the file's coordinates."""

    times: slice
    levels: np.ndarray
    latitudes: np.ndarray
    longitudes: np.ndarray
    valid_time: np.ndarray
    pressure_level: np.ndarray
    latitude: np.ndarray
    longitude: np.ndarray


def _box(store: xr.Dataset, partition: ArcoPartition, config: ArcoSource) -> _Box:
    all_levels = store["level"].values if "level" in store.dims else np.array([])
    north, west, south, east = config.area or (90.0, 0.0, -90.0, 360.0)
    times = _time_slice(store["time"].values, partition, config)
    levels = _level_positions(all_levels, config)
    latitudes = _latitude_positions(store["latitude"].values, north, south)
    longitudes, longitude = _longitude_positions(store["longitude"].values, west, east)
    if not (len(latitudes) and len(longitudes)):
        raise ValueError(
            f"source.area: {list(config.area or ())} holds no grid point of {config.url}: enlarge the area"
        )
    return _Box(
        times=times,
        levels=levels,
        latitudes=latitudes,
        longitudes=longitudes,
        valid_time=store["time"].values[times],
        pressure_level=all_levels[levels].astype("f8"),
        latitude=store["latitude"].values[latitudes].astype("f8"),
        longitude=longitude,
    )


def _time_slice(times: np.ndarray, partition: ArcoPartition, config: ArcoSource) -> slice:
    first = int(np.searchsorted(times, np.datetime64(partition.start)))
    stop = int(np.searchsorted(times, np.datetime64(partition.end) + np.timedelta64(1, "D")))
    days = times[first:stop].astype("datetime64[D]")
    if not len(days) or days[0] != np.datetime64(partition.start) or days[-1] != np.datetime64(partition.end):
        axis = f"from {str(times[0])[:13]} to {str(times[-1])[:13]}" if len(times) else "empty"
        raise ValueError(
            f"the time axis of {config.url} is {axis} and lacks {partition.start} to {partition.end}: "
            "change source.start or source.end"
        )
    return slice(first, stop)


def _level_positions(levels: np.ndarray, config: ArcoSource) -> np.ndarray:
    """Return the positions of the wanted levels, from the ground up; of all levels when none is configured."""
    wanted = sorted(config.levels or levels.tolist(), reverse=True)
    missing = [level for level in wanted if level not in levels]
    if missing:
        raise ValueError(
            f"source.levels: the store has no level {', '.join(map(str, missing))}; it has "
            f"{', '.join(str(level) for level in sorted(levels.tolist())) or 'none'} hPa"
        )
    return np.array([int(np.flatnonzero(levels == level)[0]) for level in dict.fromkeys(wanted)], dtype=int)


def _latitude_positions(latitudes: np.ndarray, north: float, south: float) -> np.ndarray:
    inside = (latitudes <= north + DEGREE_TOLERANCE) & (latitudes >= south - DEGREE_TOLERANCE)
    positions = np.flatnonzero(inside)
    return positions[np.argsort(-latitudes[positions])]


def _longitude_positions(longitudes: np.ndarray, west: float, east: float) -> tuple[np.ndarray, np.ndarray]:
    """Return positions going east from `west`, and their rising longitudes in [-180, 360).

    On a grid of 0, 90, 180, 270: `west=-90, east=90 => positions [3, 0, 1], longitudes [-90, 0, 90]`.
    """
    width = 360.0 if east - west >= 360 else (east - west) % 360
    offset = (longitudes.astype("f8") - west + DEGREE_TOLERANCE) % 360
    inside = np.flatnonzero(offset <= width + 2 * DEGREE_TOLERANCE)
    positions = inside[np.argsort(offset[inside])]
    turns = np.round((west + offset[positions] - longitudes[positions]) / 360)
    rising = longitudes[positions].astype("f8") + 360 * turns
    return positions, rising - 360 if len(rising) and rising[-1] >= 360 else rising


def _define_coordinates(file: netCDF4.Dataset, box: _Box, coverage: _Coverage, with_levels: bool) -> None:
    file.setncatts(
        {
            "Conventions": "CF-1.7",
            "institution": "European Centre for Medium-Range Weather Forecasts",
            "source": "ERA5 from the ARCO-ERA5 Zarr store",
            "license": "CC-BY 4.0; contains modified Copernicus Climate Change Service information",
        }
    )
    seconds = box.valid_time.astype("datetime64[s]").astype("i8")
    time = {"standard_name": "time", "units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}
    level = {"standard_name": "air_pressure", "units": "hPa", "positive": "down"}
    _define_coordinate(file, "valid_time", seconds, time)
    if with_levels:
        _define_coordinate(file, "pressure_level", box.pressure_level, level)
    for name, values, units in (
        ("latitude", box.latitude, "degrees_north"),
        ("longitude", box.longitude, "degrees_east"),
    ):
        _define_coordinate(file, name, values, {"standard_name": name, "units": units})
    final = box.valid_time < np.datetime64(coverage.final_until) + np.timedelta64(1, "D")
    expver = file.createVariable("expver", str, ("valid_time",))
    expver[:] = np.where(final, "0001", "0005").astype(object)


def _define_coordinate(file: netCDF4.Dataset, name: str, values: np.ndarray, attributes: dict[str, str]) -> None:
    file.createDimension(name, len(values))
    variable = file.createVariable(name, values.dtype, (name,))
    variable.setncatts(attributes)
    variable[:] = values


def _copy(array: xr.DataArray, box: _Box, file: netCDF4.Dataset) -> None:
    """Copy the box of one variable: read slab by slab, write whole chunks of the file."""
    where = {"level": box.levels, "latitude": box.latitudes, "longitude": box.longitudes}
    cut = array.isel(time=box.times).isel({dim: _as_slice(where[str(dim)]) for dim in array.dims[1:]})
    read_steps = _read_steps(array)
    chunk_steps = min(len(cut), max(1, CHUNK_BYTES // (cut.shape[-2] * cut.shape[-1] * 4)))
    write_steps = max(chunk_steps, read_steps // chunk_steps * chunk_steps)
    variable = _define_variable(array, cut.shape, chunk_steps, file)
    for start in range(0, len(cut), write_steps):
        slab = cut[start : start + write_steps]
        parts = [slab[i : i + read_steps].values for i in range(0, len(slab), read_steps)]
        variable[start : start + write_steps] = np.concatenate(parts)


def _define_variable(
    array: xr.DataArray, shape: tuple[int, ...], chunk_steps: int, file: netCDF4.Dataset
) -> netCDF4.Variable:
    known = ERA5_NAMES.get(str(array.name))
    dimensions = {"time": "valid_time", "level": "pressure_level"}
    variable = file.createVariable(
        known.short if known else str(array.name),
        "f4",
        tuple(dimensions.get(str(dim), str(dim)) for dim in array.dims),
        zlib=True,
        complevel=1,
        shuffle=True,
        chunksizes=(chunk_steps, *(1 for _ in shape[1:-2]), *shape[-2:]),
        fill_value=np.float32("nan"),
    )
    copied = {name: str(array.attrs[name]) for name in ("long_name", "units") if name in array.attrs}
    step_type = {"GRIB_stepType": known.step_type} if known else {}
    variable.setncatts({**copied, **step_type, "coordinates": "expver"})
    return variable


def _read_steps(array: xr.DataArray) -> int:
    """Return how many time steps of the store decode to READ_BYTES: whole chunks, at least one."""
    chunk = array.encoding.get("chunks") or array.shape
    layers = math.prod(math.ceil(n / size) * size for n, size in zip(array.shape[1:], chunk[1:], strict=True))
    return max(1, READ_BYTES // (chunk[0] * layers * array.dtype.itemsize)) * chunk[0]


def _as_slice(positions: np.ndarray) -> slice | np.ndarray:
    """Return rising neighbours as a slice, which Zarr reads faster than a list of positions."""
    if len(positions) and np.array_equal(positions, np.arange(positions[0], positions[0] + len(positions))):
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return positions
