"""Sample fields as NetCDF files of the three kinds in which people have ERA5."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import netCDF4
import numpy as np
from numpy.typing import NDArray

from configs.weather import SampleSource
from storage.files import atomic_path
from tasks.samples import weather_attributes as names
from tasks.samples.weather_earth import Grid, sample_grid
from tasks.samples.weather_fields import PRESSURE_LEVEL, SINGLE_LEVEL, Batch, day_batches, sample_levels
from tasks.samples.weather_noise import Floats
from tasks.samples.weather_units import SampleUnit, step_file, step_hours

_EPOCH_1900 = np.datetime64("1900-01-01T00", "s")
_MISSING = np.int16(-32767)
_INSTANT = tuple(name for name in SINGLE_LEVEL if not names.DESCRIPTIONS[name].accumulated)
_ACCUMULATED = tuple(name for name in SINGLE_LEVEL if names.DESCRIPTIONS[name].accumulated)


def write_fields(config: SampleSource, unit: SampleUnit, folder: Path, *, preliminary: bool = False) -> None:
    """Write the files of a unit of kind `fields`; same arguments, same bytes.

    With `preliminary`, the newest third of the last month's steps is marked as ERA5T (expver 0005; in the
    `classic` layout by an expver dimension); the values are the same.
    """
    final_until = _final_until(config) if preliminary else None
    if config.layout == "cds":
        _write_cds(config, unit, folder, final_until)
    elif config.layout == "classic":
        _write_classic(config, unit, folder, final_until)
    else:
        _write_single(config, unit, folder, final_until)


def _final_until(config: SampleSource) -> np.datetime64:
    """The first preliminary time step."""
    last = config.start + timedelta(days=config.days - 1)
    first = max(config.start, last.replace(day=1))
    steps = len(step_hours(config)) * ((last - first).days + 1)
    return np.datetime64(first, "s") + np.timedelta64(config.step_hours * (steps - steps // 3), "h")


def _times(config: SampleSource, unit: SampleUnit) -> NDArray[np.datetime64]:
    hours = np.arange(0, 24 * unit.days, config.step_hours).astype("timedelta64[h]")
    return (np.datetime64(unit.first) + hours).astype("datetime64[s]")


def _batches(config: SampleSource, unit: SampleUnit) -> Iterator[tuple[slice, Batch]]:
    """The fields of a unit in order of time, with the steps that they take in the unit."""
    done = 0
    for day in unit.dates():
        for batch in day_batches(config, day):
            yield slice(done, done + len(batch.times)), batch
            done += len(batch.times)


class _Cds:
    """A NetCDF-4 file as the new Climate Data Store writes it, filled step by step."""

    def __init__(
        self,
        path: Path,
        grid: Grid,
        times: NDArray[np.datetime64],
        variables: tuple[str, ...],
        levels: tuple[int, ...],
        final_until: np.datetime64 | None,
    ) -> None:
        self.file = netCDF4.Dataset(path, "w", format="NETCDF4")
        self.variables = variables
        self.file.setncatts(names.file_attributes())
        self._coordinates(grid, times, levels, final_until)
        shape = [("valid_time", min(24, len(times)))]
        if levels:
            shape.append(("pressure_level", 1))
        shape += [("latitude", len(grid.latitude)), ("longitude", len(grid.longitude))]
        dimensions, chunks = zip(*shape, strict=True)
        chunks = (max(1, min(chunks[0], 2**21 // (chunks[-1] * chunks[-2]))), *chunks[1:])
        for name in variables:
            variable = self.file.createVariable(
                name, "f4", dimensions, zlib=True, complevel=1, shuffle=True, chunksizes=chunks, fill_value=np.nan
            )
            variable.setncatts(names.variable_attributes(name, grid))
            variable.set_auto_maskandscale(False)

    def _coordinates(
        self,
        grid: Grid,
        times: NDArray[np.datetime64],
        levels: tuple[int, ...],
        final_until: np.datetime64 | None,
    ) -> None:
        number = self.file.createVariable("number", "i8", ())
        number.setncatts(names.NUMBER)
        number[...] = 0
        self._axis("valid_time", times.astype(np.int64), names.TIME)
        if levels:
            self._axis("pressure_level", np.array(levels, dtype=np.float64), names.PRESSURE)
        self._axis("latitude", grid.latitude, names.LATITUDE)
        self._axis("longitude", grid.longitude, names.LONGITUDE)
        expver = self.file.createVariable("expver", str, ("valid_time",))
        for index, time in enumerate(times):
            expver[index] = "0001" if final_until is None or time < final_until else "0005"

    def _axis(self, name: str, values: NDArray[np.int64] | Floats, attributes: dict[str, str]) -> None:
        self.file.createDimension(name, len(values))
        fill = np.nan if values.dtype.kind == "f" else None
        axis = self.file.createVariable(name, values.dtype, (name,), fill_value=fill)
        axis.setncatts(attributes)
        axis[:] = values

    def write(self, steps: slice, batch: Batch) -> None:
        """Store the variables of this file at consecutive steps."""
        fields = batch.single | batch.pressure
        for name in self.variables:
            self.file.variables[name][steps] = fields[name]


def _write_cds(config: SampleSource, unit: SampleUnit, folder: Path, final_until: np.datetime64 | None) -> None:
    """One month: single levels as a ZIP named .nc with two members, pressure levels as NetCDF-4."""
    grid, times, levels = sample_grid(config), _times(config, unit), sample_levels(config)
    single, *pressure = (folder / file for file in unit.files)
    with ExitStack() as stack:
        members = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".members-", dir=folder)))
        parts: dict[Path, tuple[tuple[str, ...], tuple[int, ...]]] = {
            members / "data_stream-oper_stepType-instant.nc": (_INSTANT, ()),
            members / "data_stream-oper_stepType-accum.nc": (_ACCUMULATED, ()),
        }
        for path in pressure:
            parts[stack.enter_context(atomic_path(path))] = (PRESSURE_LEVEL, levels)
        files = [_Cds(path, grid, times, *part, final_until) for path, part in parts.items()]
        with _closed(files):
            for steps, batch in _batches(config, unit):
                for file in files:
                    file.write(steps, batch)
        with atomic_path(single) as archive:
            _zip(archive, sorted(members.iterdir()))


@contextmanager
def _closed(files: list[_Cds]) -> Iterator[None]:
    try:
        yield
    finally:
        for file in files:
            file.file.close()


def _zip(archive: Path, members: list[Path]) -> None:
    """Pack files with a fixed date, so that equal members make equal archives."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as zipped:
        for member in members:
            entry = zipfile.ZipInfo(member.name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            with member.open("rb") as source, zipped.open(entry, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 2**20)


def _write_single(config: SampleSource, unit: SampleUnit, folder: Path, final_until: np.datetime64 | None) -> None:
    """One day: a file for every variable and time step, headed as by the new Climate Data Store."""
    grid, levels = sample_grid(config), sample_levels(config)
    for _, batch in _batches(config, unit):
        for step, time in enumerate(batch.times):
            one = Batch(
                batch.times[step : step + 1],
                {name: values[step : step + 1] for name, values in batch.single.items()},
                {name: values[step : step + 1] for name, values in batch.pressure.items()},
            )
            hour = time.astype(datetime).hour
            for name in one.single | one.pressure:
                own_levels = levels if name in PRESSURE_LEVEL else ()
                with atomic_path(folder / step_file(name, unit.first, hour)) as path:
                    file = _Cds(path, grid, one.times, (name,), own_levels, final_until)
                    with _closed([file]):
                        file.write(slice(0, 1), one)


def _write_classic(config: SampleSource, unit: SampleUnit, folder: Path, final_until: np.datetime64 | None) -> None:
    """One month as the Climate Data Store wrote it until 2024: NetCDF-3, packed into 16 bits."""
    packing = _packing(config, unit)
    times = _times(config, unit)
    if final_until is not None and final_until > times[-1]:
        final_until = None
    products = (SINGLE_LEVEL, PRESSURE_LEVEL)[: len(unit.files)]
    with ExitStack() as stack:
        files = []
        for path, variables in zip(unit.files, products, strict=True):
            part = stack.enter_context(atomic_path(folder / path))
            file = stack.enter_context(netCDF4.Dataset(part, "w", format="NETCDF3_64BIT_OFFSET"))
            _head_classic(file, config, times, variables, packing, final_until is not None)
            files.append((file, variables))
        for steps, batch in _batches(config, unit):
            fields = batch.single | {name: levels[:, ::-1] for name, levels in batch.pressure.items()}
            preliminary = None if final_until is None else batch.times >= final_until
            for file, variables in files:
                for name in variables:
                    _put_packed(file.variables[name], steps, _packed(fields[name], *packing[name]), preliminary)


def _packing(config: SampleSource, unit: SampleUnit) -> dict[str, tuple[float, float]]:
    """(scale_factor, add_offset) that spread the values of a month over 16 bits."""
    limits: dict[str, tuple[float, float]] = {}
    for _, batch in _batches(config, unit):
        for name, values in (batch.single | batch.pressure).items():
            low, high = limits.get(name, (np.inf, -np.inf))
            if not np.isnan(values).all():
                limits[name] = (min(low, float(np.nanmin(values))), max(high, float(np.nanmax(values))))
            else:
                limits[name] = (low, high)
    return {
        name: ((high - low) / 65532, (high + low) / 2) if high > low else (1.0, low if high == low else 0.0)
        for name, (low, high) in limits.items()
    }


def _packed(values: NDArray[np.float32], scale: float, offset: float) -> NDArray[np.int16]:
    missing = np.isnan(values)
    whole = np.rint((np.where(missing, np.float64(offset), values) - offset) / scale)
    return np.where(missing, _MISSING, whole.astype(np.int16))


def _put_packed(
    variable: netCDF4.Variable,
    steps: slice,
    values: NDArray[np.int16],
    preliminary: NDArray[np.bool_] | None,
) -> None:
    if preliminary is None:
        variable[steps] = values
        return
    column = preliminary.reshape(-1, *(1,) * (values.ndim - 1))
    variable[steps, 0] = np.where(column, _MISSING, values)
    variable[steps, 1] = np.where(column, values, _MISSING)


def _head_classic(
    file: netCDF4.Dataset,
    config: SampleSource,
    times: NDArray[np.datetime64],
    variables: tuple[str, ...],
    packing: dict[str, tuple[float, float]],
    two_versions: bool,
) -> None:
    """Dimensions, coordinates and empty variables of a legacy file; levels ascend in it."""
    grid = sample_grid(config)
    hours = (times - _EPOCH_1900).astype("timedelta64[h]").astype(np.int32)
    levels = np.array(sorted(config.levels), dtype=np.int32)
    axes: list[tuple[str, NDArray[np.int32] | NDArray[np.float32], dict[str, str]]] = [
        ("longitude", grid.longitude.astype(np.float32), {"units": "degrees_east", "long_name": "longitude"}),
        ("latitude", grid.latitude.astype(np.float32), {"units": "degrees_north", "long_name": "latitude"}),
    ]
    if variables == PRESSURE_LEVEL:
        axes.append(("level", levels, {"units": "millibars", "long_name": "pressure_level"}))
    if two_versions:
        axes.append(("expver", np.array([1, 5], dtype=np.int32), {"long_name": "expver"}))
    clock = {"units": "hours since 1900-01-01 00:00:00.0", "long_name": "time", "calendar": "gregorian"}
    axes.append(("time", hours, clock))
    file.setncatts({"Conventions": "CF-1.6", "history": names.HISTORY})
    for name, values, attributes in axes:
        file.createDimension(name, len(values))
        axis = file.createVariable(name, values.dtype, (name,))
        axis.setncatts(attributes)
        axis[:] = values
    present = [name for name, _, _ in axes]
    dimensions = [name for name in ("time", "expver", "level", "latitude", "longitude") if name in present]
    for name in variables:
        about = names.DESCRIPTIONS[name]
        scale, offset = packing[name]
        variable = file.createVariable(name, "i2", dimensions, fill_value=_MISSING)
        variable.setncatts({"scale_factor": scale, "add_offset": offset, "missing_value": _MISSING})
        variable.setncatts({"units": about.units, "long_name": about.long_name})
        if about.standard_name != "unknown":
            variable.standard_name = about.standard_name
        variable.set_auto_maskandscale(False)
