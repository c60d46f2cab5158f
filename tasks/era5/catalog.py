"""What raw files hold: one header scan per file content, free of paths and names of files.

A scan never trusts a file's name. It reads headers and coordinates alone, except for files with an `expver`
dimension, where only the data say which of the two versions a time step has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import netCDF4
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from storage.files import unreadable
from tasks.era5.archives import BadMemberError, unpack
from tasks.era5.coordinates import (
    LEVELS,
    bounds,
    degrees,
    described,
    horizontal_axes,
    is_level,
    listed,
    pressures,
    text,
    values,
)
from tasks.era5.grid import Grid, Orientation, canonical_grid
from tasks.era5.netcdf import (
    NETCDF_LOCK,
    UnusableError,
    decoder,
    open_netcdf,
    packing,
    read_box,
    require_filters,
    sniff,
    valid_bounds,
)
from tasks.era5.times import is_time, read_times

FINAL, ERA5T = 1, 5
"""Values of `expver` that mean final ERA5 and preliminary ERA5T; 0 stands for none or any other."""

_PRESENCE_STEPS = 64

CELL_METHOD = re.compile(r"((?:\w+: )+)(\w+(?: (?:within|over|where) (?:\w+(?!:)\b ?)+)?(?: ?\([^)]*\))?)")
"""Axes and what was done along them, in small letters: `time: mean within days`, `time: sum (interval: 1 hour)`."""
POINTS = ("point", "instant")

Role = Literal["time", "expver", "level", "latitude", "longitude", "single"]
LATITUDE: Role = "latitude"
LONGITUDE: Role = "longitude"


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
    cell_method: str
    """What `cell_methods` says of time, e.g. `mean`; empty for values at a point of time, and where nothing says it."""
    dtype: str
    dimensions: tuple[Role, ...]
    """What each stored dimension is; `single` has one element and is dropped."""
    levels: tuple[int, ...] | None
    """Pressure levels in hPa, in stored order; None on a single level."""
    chunks: tuple[int, ...] | None
    """HDF5 chunk shape; None where planes are contiguous."""
    packed: bool
    quantum: float = 0.0
    """The step between stored values, where they are packed."""
    selected: tuple[tuple[str, float], ...] = ()
    """Coordinates of which the file has one value, e.g. heightAboveGround 2, in the order of their names."""
    stored_as: str = ""
    """Its name in the file, where it goes by another one."""
    present: tuple[Presence, ...] = ()
    """Filled where the file has an expver dimension."""

    @property
    def name_in_file(self) -> str:
        """What to ask the file for."""
        return self.stored_as or self.name


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
    apart: tuple[str, ...] = ()
    """Variables among them that are data like others, but lie on a second grid or in a group."""


def scan_file(path: Path, sha256: str, extract_to: Path) -> FileScan:
    """Describe one raw file; members of a ZIP archive are unpacked to `extract_to/<sha256 of member>.nc`."""
    try:
        if sniff(path) == "zip":
            return _scan_archive(path, sha256, extract_to)
        found = _scan_netcdf(path, sha256, None)
    except UnusableError as error:
        return FileScan(sha256=sha256, problem=str(error))
    except OSError as error:
        return FileScan(sha256=sha256, problem=unreadable(error))
    return FileScan(sha256=sha256, members=(found.member,), skipped=found.skipped, apart=found.apart)


def _scan_archive(path: Path, sha256: str, extract_to: Path) -> FileScan:
    """Describe the good members of an archive; bad ones are its problem, and files of other kinds are skipped."""
    members: list[Member] = []
    skipped: list[str] = []
    apart: list[str] = []
    bad: list[str] = []
    for entry, unpacked in unpack(path, extract_to):
        if isinstance(unpacked, UnusableError):
            skipped.append(f"ZIP member {entry} {unpacked}")
            continue
        try:
            if isinstance(unpacked, BadMemberError):
                raise unpacked
            found = _scan_netcdf(unpacked, unpacked.stem, entry)
        except (UnusableError, BadMemberError) as error:
            bad.append(f"{entry} {error}")
            continue
        members.append(found.member)
        skipped.extend(f"ZIP member {entry}: {note}" for note in found.skipped)
        apart.extend(found.apart)
    if not members and not bad:
        raise UnusableError(f"is a ZIP archive without NetCDF ({'; '.join(skipped) or 'no members'})")
    problem = f"is a ZIP archive whose member {', and whose member '.join(bad)}" if bad else None
    return FileScan(sha256=sha256, members=tuple(members), problem=problem, skipped=tuple(skipped), apart=tuple(apart))


class _Found(NamedTuple):
    """What one NetCDF file holds, and what in it was left out."""

    member: Member
    skipped: tuple[str, ...]
    apart: tuple[str, ...]


def _scan_netcdf(path: Path, sha256: str, entry: str | None) -> _Found:
    with NETCDF_LOCK, open_netcdf(path) as dataset:
        try:
            return _Header(dataset).found(sha256, entry)
        except UnusableError as error:
            in_groups = [_group(name, group) for name, group in _groups(dataset)]
            raise UnusableError("; ".join([str(error), *in_groups])) from None
        except (OSError, RuntimeError, IndexError, UnicodeDecodeError) as error:
            raise UnusableError(f"is damaged: its header cannot be read ({error}); download it again") from error


class _Header:
    """The coordinates of one open file and the roles of its dimensions."""

    def __init__(self, dataset: netCDF4.Dataset) -> None:
        self._dataset = dataset
        if any(True for _ in _groups(dataset)) and not dataset.variables:
            raise UnusableError("keeps its variables in groups")
        if any(name.startswith("phony_dim") for name in dataset.dimensions):
            raise UnusableError("is HDF5 without the structure of NetCDF (no named dimensions); write it as NetCDF")
        latitude, longitude = horizontal_axes(dataset)
        self._grid, self._orientation = canonical_grid(degrees(latitude, "north"), degrees(longitude, "east"))
        self._times = read_times(dataset)
        self._roles: dict[str, Role] = {
            name: "single" for name, dimension in dataset.dimensions.items() if dimension.size == 1
        }
        if self._times.dimension and self._times.dimension not in self._roles:
            self._roles[self._times.dimension] = "time"
        self._roles |= {name: "level" for name in dataset.dimensions if self._names_levels(name)}
        self._horizontal = (*latitude.dimensions, *longitude.dimensions)
        self._roles |= dict.fromkeys(latitude.dimensions, LATITUDE) | dict.fromkeys(longitude.dimensions, LONGITUDE)
        if "expver" in dataset.dimensions:
            self._roles["expver"] = "expver"
        self._aside = self._coordinates() | {latitude.name, longitude.name} | self._times.coordinates

    def _names_levels(self, dimension: str) -> bool:
        """Say whether a dimension has pressures: more than one level, or one of which the file says the pressure."""
        coordinate = self._dataset.variables.get(dimension)
        if coordinate is None or not is_level(coordinate):
            return dimension in LEVELS
        if coordinate.size > 1:
            return True
        try:
            return pressures(coordinate) is not None
        except UnusableError:
            return True

    def _coordinates(self) -> set[str]:
        """Return the variables that describe others: coordinates, their bounds, and grid mappings."""
        variables = self._dataset.variables
        named = {*listed(self._dataset), *(name for v in variables.values() for name in listed(v))}
        mappings = {text(v, "grid_mapping") for v in variables.values()}
        mappings |= {name for name, v in variables.items() if "grid_mapping_name" in v.ncattrs()}
        return bounds(self._dataset) | named | mappings | set(self._dataset.dimensions) | {"expver", "number"}

    def found(self, sha256: str, entry: str | None) -> _Found:
        """Describe the file, and what in it is left out."""
        self._require_one_realisation()
        found: list[Variable] = []
        skipped: list[str] = []
        apart: list[str] = []
        for variable in self._dataset.variables.values():
            if variable.name in self._aside:
                continue
            try:
                if self._is_field(variable):
                    found.append(self._variable(variable))
                elif self._is_apart(variable):
                    apart.append(variable.name)
                    skipped.append(self._of_another_grid(variable))
            except UnusableError as error:
                skipped.append(f"variable {variable.name} {error}")
        if not found:
            raise UnusableError(f"has no usable variable ({'; '.join(skipped) or described(self._dataset)})")
        for name, group in _groups(self._dataset):
            apart += group.variables
            skipped.append(_group(name, group))
        layers = self._layers()
        member = Member(
            sha256=sha256,
            entry=entry,
            variables=tuple(found),
            times=_arithmetic_runs(self._times.seconds),
            versions=() if layers else self._versions(),
            layers=layers,
            grid=self._grid,
            orientation=self._orientation,
        )
        return _Found(member, tuple(skipped), tuple(apart))

    def _is_field(self, variable: netCDF4.Variable) -> bool:
        """Say whether a variable lies on the grid."""
        on_grid = set(self._horizontal) <= set(variable.dimensions)
        return on_grid and (bool(self._horizontal) or np.dtype(variable.dtype).kind in "iuf")

    def _is_apart(self, variable: netCDF4.Variable) -> bool:
        """Say whether a variable is a field like others, but of another grid."""
        on_grid = set(self._horizontal) <= set(variable.dimensions)
        return not on_grid and sum(n > 1 for n in variable.shape) > 1 and np.dtype(variable.dtype).kind in "iuf"

    def _of_another_grid(self, variable: netCDF4.Variable) -> str:
        return (
            f"variable {variable.name} lies along {' x '.join(variable.dimensions)}, not on the file's grid of "
            f"{' x '.join(self._horizontal)}; write it to a file of its own with `ncks -v {variable.name} in.nc out.nc`"
        )

    def _require_one_realisation(self) -> None:
        for name, dimension in self._dataset.dimensions.items():
            coordinate = self._dataset.variables.get(name)
            named = name in ("number", "realization", "ensemble", "member")
            marked = coordinate is not None and text(coordinate, "standard_name") == "realization"
            if dimension.size > 1 and (named or marked):
                raise UnusableError(
                    f"holds {dimension.size} ensemble members; select one (product_type reanalysis has only one)"
                )

    def _variable(self, variable: netCDF4.Variable) -> Variable:
        if np.dtype(variable.dtype).kind not in "iuf" or not isinstance(variable.datatype, np.dtype):
            raise UnusableError("does not hold numbers")  # but texts, pairs, names of an enumeration, lists
        roles: list[Role] = []
        for name, length in zip(variable.dimensions, variable.shape, strict=True):
            if name not in self._roles:
                raise UnusableError(f"has a dimension {name} of length {length}, which is no time, level or place")
            roles.append(self._roles[name])
        if "time" not in roles and len(self._times.seconds) > 1:
            raise UnusableError("does not vary in time")
        require_filters(variable)
        attributes, _ = packing(variable), valid_bounds(variable)
        chunked = self._dataset.data_model.startswith("NETCDF4") and variable.chunking() != "contiguous"
        levels = self._levels(variable, roles)
        return Variable(
            name=variable.name,
            units=text(variable, "units"),
            long_name=text(variable, "long_name"),
            standard_name=text(variable, "standard_name"),
            step_type=text(variable, "GRIB_stepType") or None,
            cell_method=self._cell_method(variable),
            dtype=str(np.dtype(variable.dtype)),
            dimensions=tuple(roles),
            levels=levels,
            chunks=tuple(variable.chunking()) if chunked else None,
            packed=not {"scale_factor", "add_offset"}.isdisjoint(attributes),
            quantum=abs(float(attributes.get("scale_factor", 0))),
            selected=tuple(self._selected(variable)),
            present=tuple(_presence(variable, roles, levels)) if "expver" in roles else (),
        )

    def _cell_method(self, variable: netCDF4.Variable) -> str:
        """Return what `cell_methods` says of time: `area: mean time: sum (interval: 1 hour) => sum (interval: 1 hour)`.

        A point of time is as good as nothing. A method without an axis, which CF does not allow, is taken for time's.
        """
        written = " ".join(text(variable, "cell_methods").lower().replace(":", ": ").split())
        methods = CELL_METHOD.findall(written)
        names = {f"{name}".lower() for name in (*self._times.coordinates, "time", "valid_time", self._times.dimension)}
        of_time = [method.strip() for axes, method in methods if not names.isdisjoint(axes.replace(":", "").split())]
        found = " ".join(of_time if methods else [written])
        return "" if found.startswith(POINTS) else found

    def _selected(self, variable: netCDF4.Variable) -> Iterator[tuple[str, float]]:
        """Yield the coordinates of which the file has one value for this variable, times and places aside."""
        variables = self._dataset.variables
        names = {name for name in variable.dimensions if self._roles.get(name) == "single"}
        names |= {*listed(variable), *listed(self._dataset)}
        names -= {"expver", *self._horizontal, *self._times.coordinates}
        for name in sorted(names & variables.keys()):
            coordinate = variables[name]
            if coordinate.size != 1 or np.dtype(coordinate.dtype).kind not in "iuf":
                continue
            if not (is_time(coordinate) or is_level(coordinate) or coordinate.name in ("latitude", "longitude")):
                yield name, float(values(coordinate).ravel()[0])

    def _levels(self, variable: netCDF4.Variable, roles: list[Role]) -> tuple[int, ...] | None:
        kind = text(variable, "GRIB_typeOfLevel")
        along = variable.dimensions[roles.index("level")] if "level" in roles else None
        name = along or self._scalar_level(variable, kind)
        if name is None:
            return None
        coordinate = self._dataset.variables.get(name)
        if coordinate is None:
            raise UnusableError(f"lies on {name}s that are not pressures in hPa: they have no values")
        if kind and not kind.startswith("isobaric"):
            raise UnusableError(
                f"lies on {name}s that are not pressures in hPa, but {kind}; interpolate it to pressures"
            )
        return pressures(coordinate)

    def _scalar_level(self, variable: netCDF4.Variable, kind: str) -> str | None:
        """Return the coordinate that tells a variable's one level; it is for all where no attribute says for which."""
        variables = self._dataset.variables
        scalars = [name for name in variables if variables[name].size == 1 and is_level(variables[name])]
        owned = {*listed(self._dataset), *(name for v in variables.values() for name in listed(v))}
        mine = {*listed(variable), *listed(self._dataset)}
        found = [name for name in scalars if name in mine or (name not in owned and not variables[name].ndim)]
        return found[0] if found and (not kind or kind.startswith("isobaric")) else None

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
            return ((versions[0], len(self._times.seconds)),)
        if len(versions) != len(self._times.seconds):
            raise UnusableError(f"has {len(versions)} expver values for {len(self._times.seconds)} times; repair it")
        cuts = [0, *(np.flatnonzero(np.diff(versions)) + 1).tolist(), len(versions)]
        return tuple((versions[a], b - a) for a, b in pairwise(cuts))


def _groups(dataset: netCDF4.Dataset | netCDF4.Group) -> Iterator[tuple[str, netCDF4.Group]]:
    """Yield the path of every group that has variables, and the group."""
    for group in dataset.groups.values():
        if group.variables:
            yield group.path.strip("/"), group
        yield from _groups(group)


def _group(name: str, group: netCDF4.Group) -> str:
    return (
        f"group {name} ({', '.join(group.variables)}) is not read; write it to a file of its own with `ncks -G : -g "
        f"{name} in.nc out.nc` or `xarray.open_dataset('in.nc', group={name!r}).to_netcdf('out.nc')`"
    )


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
                found[window] = ~np.isnan(decode(stored)).all(axis=(1, 2, 3))
            edges = np.flatnonzero(np.diff(found, prepend=False, append=False)).reshape(-1, 2).tolist()
            yield Presence(layer=layer, level=level, runs=tuple((a, b - a) for a, b in edges))
