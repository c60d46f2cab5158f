"""Raw files as the Climate Data Store delivers them: one NetCDF-4 file per variable and period.

zlib level 1 with byte shuffle (as in every file that the store made since 2024), HDF5 chunks of 24 steps x 80 x 160
values: the size that the NetCDF library gives to a month is 82 x 80 x 160, and the shorter one is kinder to readers of
single windows.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import netCDF4
import numpy as np

from benchmarks.fields import Field
from storage.files import atomic_path

CHUNK = (24, 80, 160)
FIRST = 1_704_067_200
"""2024-01-01T00 UTC."""
LEVELS = (1000, 850, 700, 600, 500, 400)
VARIABLES: dict[str, tuple[float, float, str, str]] = {
    "msl": (101_000, 900, "Pa", "air_pressure_at_mean_sea_level"),
    "r": (55, 20, "%", "relative_humidity"),
    "sp": (97_000, 3000, "Pa", "surface_air_pressure"),
    "t": (255, 18, "K", "air_temperature"),
    "t2m": (284, 14, "K", "air_temperature"),
    "u10": (0, 5, "m s**-1", "eastward_wind"),
    "v10": (0, 5, "m s**-1", "northward_wind"),
}
"""Centre, spread, units and standard name of every variable, in the order of the store's channels."""
ON_LEVELS = ("r", "t")


@dataclass(frozen=True, slots=True)
class RawData:
    """What to generate: hourly fields of all seven variables, `steps` per file, in `periods` files each."""

    rows: int
    columns: int
    resolution: float
    """Grid spacing in degrees, from 90 north and 0 east."""
    steps: int
    periods: int
    levels: tuple[int, ...] = LEVELS
    distinct: int = 4
    """Periods with fields of their own; later ones repeat them at later times."""

    @property
    def channels(self) -> int:
        """Planes per time step."""
        return len(VARIABLES) + len(ON_LEVELS) * (len(self.levels) - 1)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Time, channel, latitude, longitude."""
        return self.steps * self.periods, self.channels, self.rows, self.columns

    @property
    def megabytes(self) -> float:
        """Size of the values as float32."""
        return 4 * float(np.prod(self.shape)) / 1e6

    def describe(self) -> dict[str, object]:
        """Return what a reader of the results has to know."""
        return {
            "shape": self.shape,
            "megabytes_float32": round(self.megabytes),
            "files": len(VARIABLES) * self.periods,
            "hdf5_chunk": CHUNK,
            "hdf5_filters": "shuffle, zlib level 1",
        }


def make_raw_files(data: RawData, folder: Path) -> None:
    """Write all files into `folder`, those that are there already excepted."""
    jobs = [
        (data, folder, variable, period) for variable in VARIABLES for period in range(min(data.periods, data.distinct))
    ]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        list(pool.map(_write_job, jobs))
    for variable in VARIABLES:
        for period in range(data.distinct, data.periods):
            _repeat(data, folder, variable, period)


def raw_path(folder: Path, variable: str, period: int) -> Path:
    """Return the file of a variable and period."""
    return folder / f"{variable}-{period:03d}.nc"


def _write_job(job: tuple[RawData, Path, str, int]) -> None:
    data, folder, variable, period = job
    path = raw_path(folder, variable, period)
    if not path.exists():
        with atomic_path(path) as temporary:
            _write(data, temporary, variable, period)


def _write(data: RawData, path: Path, name: str, period: int) -> None:
    centre, spread, units, standard_name = VARIABLES[name]
    levels = data.levels if name in ON_LEVELS else ()
    number = 100 * list(VARIABLES).index(name)
    fields = [
        Field(data.rows, data.columns, number + index, centre - 8 * index, spread) for index in range(len(levels) or 1)
    ]
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        _write_coordinates(file, data, levels, period)
        dimensions = ("valid_time", *(("pressure_level",) if levels else ()), "latitude", "longitude")
        chunk = (
            min(CHUNK[0], data.steps),
            *((1,) if levels else ()),
            min(CHUNK[1], data.rows),
            min(CHUNK[2], data.columns),
        )
        variable = file.createVariable(
            name, "f4", dimensions, zlib=True, complevel=1, shuffle=True, chunksizes=chunk, fill_value=np.nan
        )
        variable.setncatts({"units": units, "standard_name": standard_name, "GRIB_stepType": "instant"})
        variable.set_auto_maskandscale(False)
        for first in range(0, data.steps, chunk[0]):
            steps = range(first, min(first + chunk[0], data.steps))
            planes = [np.stack([field.plane(period * data.steps + step) for step in steps]) for field in fields]
            variable[first : steps.stop] = np.stack(planes, axis=1) if levels else planes[0]


def _write_coordinates(file: netCDF4.Dataset, data: RawData, levels: tuple[int, ...], period: int) -> None:
    file.Conventions = "CF-1.7"
    time = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian", "standard_name": "time"}
    axes = {
        "valid_time": (_times(data, period), time),
        "latitude": (
            90 - data.resolution * np.arange(data.rows),
            {"units": "degrees_north", "standard_name": "latitude"},
        ),
        "longitude": (
            data.resolution * np.arange(data.columns),
            {"units": "degrees_east", "standard_name": "longitude"},
        ),
    }
    if levels:
        axes["pressure_level"] = (np.array(levels, float), {"units": "hPa", "standard_name": "air_pressure"})
    for name, (values, attributes) in axes.items():
        file.createDimension(name, len(values))
        axis = file.createVariable(name, values.dtype, (name,))
        axis.setncatts(attributes)
        axis[:] = values


def _times(data: RawData, period: int) -> np.ndarray:
    return FIRST + 3600 * (period * data.steps + np.arange(data.steps))


def _repeat(data: RawData, folder: Path, variable: str, period: int) -> None:
    path = raw_path(folder, variable, period)
    if path.exists():
        return
    with atomic_path(path) as temporary:
        shutil.copyfile(raw_path(folder, variable, period % data.distinct), temporary)
        with netCDF4.Dataset(temporary, "r+") as file:
            file["valid_time"][:] = _times(data, period)


def read_all(folder: Path) -> int:
    """Read every file once, so that all subjects find them in the page cache; return their bytes."""
    return sum(len(path.read_bytes()) for path in sorted(folder.glob("*.nc")))
