"""What raw files hold: one header scan per file content, free of paths and names of files.

A scan never trusts a file's name. It reads headers and coordinates alone, except for files with an `expver`
dimension, where only the data say which of the two versions a time step has.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

import netCDF4
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from storage.files import fsync
from tasks.era5.grid import Grid, Orientation, canonical_grid
from tasks.era5.netcdf import NETCDF_LOCK, UnusableError, decoder, open_netcdf, read_box, seconds_since_1970, sniff

FINAL, ERA5T = 1, 5
"""Values of `expver` that mean final ERA5 and preliminary ERA5T; 0 stands for none or any other."""

MAX_INFLATION = 200
"""A ZIP member that grows more than this, and beyond a megabyte, is refused."""

_TIMES = ("valid_time", "time", "date")
_LEVELS = ("pressure_level", "isobaricInhPa", "level", "plev", "pressure")
_HPA = {"hpa": 1.0, "millibar": 1.0, "millibars": 1.0, "mbar": 1.0, "mb": 1.0, "": 1.0, "pa": 0.01}
_PRESENCE_STEPS = 64

Role = Literal["time", "expver", "level", "latitude", "longitude", "single"]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True)


class Presence(_Facts):
    """Where one layer of the expver dimension has any value: runs of time steps (first, count)."""

    layer: int
    level: int | None
    runs: tuple[tuple[int, int], ...]


class Variable(_Facts):
    """One gridded variable as its header describes it."""

    name: str
    units: str
    long_name: str
    standard_name: str
    step_type: str | None
    """`GRIB_stepType`, e.g. instant, accum, avgad; classic files do not have it."""
    dtype: str
    dimensions: tuple[Role, ...]
    """What each stored dimension is; `single` has one element and is dropped."""
    levels: tuple[int, ...] | None
    """Pressure levels in hPa, in stored order; None on a single level."""
    chunks: tuple[int, ...] | None
    """HDF5 chunk shape; None where planes are contiguous."""
    packed: bool
    present: tuple[Presence, ...] = ()
    """Filled where the file has an expver dimension."""


class Member(_Facts):
    """One NetCDF file: a raw file itself, or one that lay in a ZIP archive."""

    sha256: str
    entry: str | None
    """Its name in the archive, for messages alone."""
    variables: tuple[Variable, ...]
    times: tuple[tuple[int, int, int], ...]
    """Time steps as runs (start, step, count) in seconds since 1970."""
    versions: tuple[tuple[int, int], ...]
    """`expver` along time as runs (version, count); empty where an expver dimension or nothing says it."""
    layers: tuple[int, ...]
    """Versions along the expver dimension; empty where there is none."""
    grid: Grid
    orientation: Orientation

    @property
    def length(self) -> int:
        """Number of time steps."""
        return sum(count for _, _, count in self.times)

    def seconds(self) -> NDArray[np.int64]:
        """Return every time in seconds since 1970, in stored order."""
        return np.concatenate([start + step * np.arange(count) for start, step, count in self.times])

    def versions_by_time(self) -> NDArray[np.uint8]:
        """Return FINAL, ERA5T or 0 per time, for members without an expver dimension."""
        if not self.versions:
            return np.zeros(self.length, np.uint8)
        return np.concatenate([np.full(count, version, np.uint8) for version, count in self.versions])


class FileScan(_Facts):
    """Everything that later stages need to know about one raw file's content."""

    sha256: str
    members: tuple[Member, ...] = ()
    problem: str | None = None
    """Why the file cannot be used and what to do, as a predicate: `<name> is empty; download it again`."""
    skipped: tuple[str, ...] = ()
    """Parts that were left out, each with its reason."""


def scan_file(path: Path, sha256: str, extract_to: Path) -> FileScan:
    """Describe one raw file; members of a ZIP archive are unpacked to `extract_to/<sha256 of member>.nc`."""
    try:
        if sniff(path) == "zip":
            return _scan_archive(path, sha256, extract_to)
        member, skipped = _scan_netcdf(path, sha256, None)
    except UnusableError as error:
        return FileScan(sha256=sha256, problem=str(error))
    return FileScan(sha256=sha256, members=(member,), skipped=skipped)


def _scan_archive(path: Path, sha256: str, extract_to: Path) -> FileScan:
    members: list[Member] = []
    skipped: list[str] = []
    for entry, unpacked in _unpack(path, extract_to):
        if isinstance(unpacked, UnusableError):
            skipped.append(f"ZIP member {entry} {unpacked}")
            continue
        try:
            member, notes = _scan_netcdf(unpacked, unpacked.stem, entry)
        except UnusableError as error:
            raise UnusableError(f"is a ZIP archive whose member {entry} {error}") from error
        members.append(member)
        skipped.extend(f"ZIP member {entry}: {note}" for note in notes)
    if not members:
        raise UnusableError(f"is a ZIP archive without NetCDF ({'; '.join(skipped) or 'no members'})")
    return FileScan(sha256=sha256, members=tuple(members), skipped=tuple(skipped))


def _unpack(path: Path, extract_to: Path) -> Iterator[tuple[str, Path | UnusableError]]:
    """Yield each member's printable name and its unpacked file, or why it is not NetCDF."""
    extract_to.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            _require_bounded(infos, shutil.disk_usage(extract_to).free)
            for info in infos:
                yield _printable(info.filename), _unpack_member(archive, info, extract_to)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UnusableError(f"is a damaged or cut-off ZIP archive ({error}); download it again") from error
    except (NotImplementedError, RuntimeError) as error:  # unknown compression, encryption
        raise UnusableError(f"is a ZIP archive that cannot be unpacked ({error})") from error


def _require_bounded(infos: list[zipfile.ZipInfo], free: int) -> None:
    for info in infos:
        if info.file_size > max(MAX_INFLATION * info.compress_size, 2**20):
            raise UnusableError(
                f"is a ZIP archive whose member {_printable(info.filename)} grows from {info.compress_size:,} to "
                f"{info.file_size:,} bytes; that is not weather data, download it again"
            )
    needed = sum(info.file_size for info in infos)
    if needed > free:
        raise UnusableError(f"is a ZIP archive that needs {needed:,} bytes unpacked, and {free:,} are free")


def _unpack_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path) -> Path | UnusableError:
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    sha256 = hashlib.sha256()
    try:
        with archive.open(info) as source, temporary.open("wb") as target:
            while block := source.read(1 << 20):
                sha256.update(block)
                target.write(block)
        if sniff(temporary) == "zip":
            return UnusableError("is a ZIP archive itself; unpack it")
        fsync(temporary)
        return temporary.replace(folder / f"{sha256.hexdigest()}.nc")
    except UnusableError as error:
        return error
    finally:
        temporary.unlink(missing_ok=True)


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[-100:])


def _scan_netcdf(path: Path, sha256: str, entry: str | None) -> tuple[Member, tuple[str, ...]]:
    with NETCDF_LOCK, open_netcdf(path) as dataset:
        try:
            return _Header(dataset).member(sha256, entry)
        except (OSError, RuntimeError, IndexError) as error:
            raise UnusableError(f"is damaged: its header cannot be read ({error}); download it again") from error


class _Header:
    """The coordinates of one open file and the roles of its dimensions."""

    def __init__(self, dataset: netCDF4.Dataset) -> None:
        self._dataset = dataset
        latitude, longitude = self._horizontal("latitude", "north"), self._horizontal("longitude", "east")
        self._grid, self._orientation = canonical_grid(latitude[:], longitude[:])
        time = self._time_coordinate()
        self._seconds = _seconds(time)
        self._roles: dict[str, Role] = {
            name: "single" for name, dimension in dataset.dimensions.items() if dimension.size == 1
        }
        self._roles |= {name: "time" for name in time.dimensions if name not in self._roles}
        self._roles |= {name: "level" for name in _LEVELS if name in dataset.dimensions}
        self._roles |= {latitude.dimensions[0]: "latitude", longitude.dimensions[0]: "longitude"}
        if "expver" in dataset.dimensions:
            self._roles["expver"] = "expver"

    def _horizontal(self, name: str, direction: str) -> netCDF4.Variable:
        found = [v for v in self._dataset.variables.values() if _is_horizontal(v, name, direction)]
        if any(v.ndim == 2 for v in found):
            raise UnusableError(
                f"has a {name} with two dimensions (a projected or rotated grid); regrid it to latitude and longitude"
            )
        found = [v for v in found if v.ndim == 1]
        if not found:
            raise UnusableError(
                f"has no {name} axis ({self._described()}); only fields on a latitude-longitude grid can be stored"
            )
        return found[0]

    def _time_coordinate(self) -> netCDF4.Variable:
        variables = self._dataset.variables
        others = [n for n, v in variables.items() if n not in _TIMES and _text(v, "standard_name") == "time"]
        for name in (*_TIMES, *others):
            if name not in variables:
                continue
            variable = variables[name]
            if sum(n > 1 for n in variable.shape) > 1:
                raise UnusableError(
                    f"has a {name} with two dimensions ({', '.join(variable.dimensions)}); flatten it to one time axis"
                )
            if variable.size and (" since " in _text(variable, "units") or name == "date"):
                return variable
        raise UnusableError(
            f"has no time coordinate ({self._described()}), as climatologies have none; give files with a time or "
            f"valid_time coordinate"
        )

    def _described(self) -> str:
        lengths = ", ".join(f"{name} {d.size}" for name, d in self._dataset.dimensions.items())
        return f"dimensions: {lengths or 'none'}"

    def member(self, sha256: str, entry: str | None) -> tuple[Member, tuple[str, ...]]:
        """Describe the file; the second item names gridded variables that were left out."""
        self._require_one_realisation()
        found: list[Variable] = []
        skipped: list[str] = []
        for variable in self._dataset.variables.values():
            roles = [self._roles.get(name) for name in variable.dimensions]
            if not {"latitude", "longitude"} <= set(roles):
                continue
            try:
                found.append(self._variable(variable))
            except UnusableError as error:
                skipped.append(f"variable {variable.name} {error}")
        if not found:
            raise UnusableError(f"has no usable variable ({'; '.join(skipped) or self._described()})")
        layers = self._layers()
        member = Member(
            sha256=sha256,
            entry=entry,
            variables=tuple(found),
            times=_arithmetic_runs(self._seconds),
            versions=() if layers else self._versions(),
            layers=layers,
            grid=self._grid,
            orientation=self._orientation,
        )
        return member, tuple(skipped)

    def _require_one_realisation(self) -> None:
        for name, dimension in self._dataset.dimensions.items():
            coordinate = self._dataset.variables.get(name)
            named = name in ("number", "realization", "ensemble", "member")
            marked = coordinate is not None and _text(coordinate, "standard_name") == "realization"
            if dimension.size > 1 and (named or marked):
                raise UnusableError(
                    f"holds {dimension.size} ensemble members; select one (product_type reanalysis has only one)"
                )

    def _variable(self, variable: netCDF4.Variable) -> Variable:
        if np.dtype(variable.dtype).kind not in "iuf":
            raise UnusableError("does not hold numbers")
        roles: list[Role] = []
        for name, length in zip(variable.dimensions, variable.shape, strict=True):
            if name not in self._roles:
                raise UnusableError(f"has a dimension {name} of length {length}, which is no time, level or place")
            roles.append(self._roles[name])
        if "time" not in roles and len(self._seconds) > 1:
            raise UnusableError("does not vary in time")
        chunked = self._dataset.data_model.startswith("NETCDF4") and variable.chunking() != "contiguous"
        levels = self._levels(variable, roles)
        return Variable(
            name=variable.name,
            units=_text(variable, "units"),
            long_name=_text(variable, "long_name"),
            standard_name=_text(variable, "standard_name"),
            step_type=_text(variable, "GRIB_stepType") or None,
            dtype=str(np.dtype(variable.dtype)),
            dimensions=tuple(roles),
            levels=levels,
            chunks=tuple(variable.chunking()) if chunked else None,
            packed=not {"scale_factor", "add_offset"}.isdisjoint(variable.ncattrs()),
            present=tuple(_presence(variable, roles, levels)) if "expver" in roles else (),
        )

    def _levels(self, variable: netCDF4.Variable, roles: list[Role]) -> tuple[int, ...] | None:
        if "level" in roles:
            name = variable.dimensions[roles.index("level")]
        else:  # one level, as a scalar coordinate
            listed = f"{_text(variable, 'coordinates')} {_text(self._dataset, 'coordinates')}".split()
            scalars = [n for n in _LEVELS if n in listed and n in self._dataset.variables]
            if not scalars:
                return None
            name = scalars[0]
        coordinate = self._dataset.variables.get(name)
        factor = None if coordinate is None else _HPA.get(_text(coordinate, "units").lower())
        if coordinate is None or factor is None:
            raise UnusableError(f"lies on {name}s that are not pressures in hPa")
        pressures = np.atleast_1d(coordinate[...]).astype(np.float64) * factor
        if not np.allclose(pressures, np.round(pressures), atol=1e-3):
            raise UnusableError(f"lies on pressure levels that are not whole hPa ({pressures.tolist()})")
        return tuple(round(p) for p in pressures.tolist())

    def _layers(self) -> tuple[int, ...]:
        if "expver" not in self._dataset.dimensions:
            return ()
        if "expver" not in self._dataset.variables:
            raise UnusableError("has an expver dimension without values; select the version and drop the dimension")
        return tuple(_expver(self._dataset.variables["expver"]))

    def _versions(self) -> tuple[tuple[int, int], ...]:
        if "expver" not in self._dataset.variables:
            return ()
        versions = _expver(self._dataset.variables["expver"])
        if len(versions) == 1:
            return ((versions[0], len(self._seconds)),)
        if len(versions) != len(self._seconds):
            raise UnusableError(f"has {len(versions)} expver values for {len(self._seconds)} times; repair it")
        cuts = [0, *(np.flatnonzero(np.diff(versions)) + 1).tolist(), len(versions)]
        return tuple((versions[a], b - a) for a, b in pairwise(cuts))


def _is_horizontal(variable: netCDF4.Variable, name: str, direction: str) -> bool:
    units = _text(variable, "units").lower()
    return (
        variable.name.lower() in (name, name[:3])
        or _text(variable, "standard_name") == name
        or (units.startswith("degree") and units.endswith(direction))
    )


def _text(holder: netCDF4.Variable | netCDF4.Dataset, attribute: str) -> str:
    return str(holder.getncattr(attribute)).strip() if attribute in holder.ncattrs() else ""


def _seconds(coordinate: netCDF4.Variable) -> NDArray[np.int64]:
    values = np.atleast_1d(coordinate[...]).ravel()
    units = _text(coordinate, "units")
    if " since " in units:
        return seconds_since_1970(values, units, _text(coordinate, "calendar") or "standard")
    try:
        days = [f"{str(int(v))[:4]}-{str(int(v))[4:6]}-{str(int(v))[6:]}" for v in values]
        return np.array(days, "datetime64[D]").astype("datetime64[s]").astype(np.int64)
    except ValueError as error:
        raise UnusableError(f"has dates that are not YYYYMMDD, such as {values[0]}; add a time coordinate") from error


def _expver(coordinate: netCDF4.Variable) -> list[int]:
    """Return FINAL, ERA5T or 0 per element; experiment versions come as numbers, strings or characters."""
    values = np.atleast_1d(coordinate[...])
    if values.dtype == "S1":
        values = np.atleast_1d(netCDF4.chartostring(values))
    numbers = [int(v) if str(v).strip().isdigit() else 0 for v in values.ravel().tolist()]
    return [n if n in (FINAL, ERA5T) else 0 for n in numbers]


def _arithmetic_runs(values: NDArray[np.int64]) -> tuple[tuple[int, int, int], ...]:
    """Cut integers into runs of equal steps: `[0, 6, 12, 15] => ((0, 6, 3), (15, 0, 1))`."""
    runs: list[tuple[int, int, int]] = []
    steps = np.diff(values)
    changes = np.flatnonzero(np.diff(steps)) + 1
    first = 0
    while first < len(values):
        if first == len(values) - 1:
            runs.append((int(values[first]), 0, 1))
            break
        position = np.searchsorted(changes, first, side="right")
        last = int(changes[position]) if position < len(changes) else len(values) - 1
        runs.append((int(values[first]), int(steps[first]), last - first + 1))
        first = last + 1
    return tuple(runs)


def _presence(variable: netCDF4.Variable, roles: list[Role], levels: tuple[int, ...] | None) -> Iterator[Presence]:
    """Find, per version and level, the time steps that have any value at all."""
    decode = decoder(variable)
    steps = variable.shape[roles.index("time")] if "time" in roles else 1
    for layer in range(variable.shape[roles.index("expver")]):
        for index, level in enumerate(levels or (None,)):
            found = np.zeros(steps, bool)
            for first in range(0, steps, _PRESENCE_STEPS):
                window = slice(first, min(first + _PRESENCE_STEPS, steps))
                selection = {
                    "time": window,
                    "expver": slice(layer, layer + 1),
                    "level": slice(index, index + 1),
                }
                stored = read_box(variable, roles, selection)
                found[window] = ~np.isnan(decode(stored) if decode else stored).all(axis=(1, 2, 3))
            edges = np.flatnonzero(np.diff(found, prepend=False, append=False)).reshape(-1, 2).tolist()
            yield Presence(layer=layer, level=level, runs=tuple((a, b - a) for a, b in edges))
