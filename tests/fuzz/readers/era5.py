"""Weather files: NetCDF-4, classic NetCDF, and ZIP archives of such, from the header to the last value."""

from __future__ import annotations

import io
import struct
import zipfile
from contextlib import closing, suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, cast

import netCDF4
import numpy as np

from configs.weather import Recipe, StoreLayout
from tasks.era5.block import list_blocks, write_block
from tasks.era5.catalog import scan_file
from tasks.era5.cf_units import same_unit
from tasks.era5.source_files import SourceFiles
from tasks.era5.timeline import build_timeline
from tests.fuzz.case import Files, Reader, ToldError
from tests.fuzz.mutate import NUMBERS, WORDS, mutate_bytes, number, packed, some

LAYOUT = StoreLayout(chunk_space=4, shard_chunks=(1, 2))
Described = dict[str, Any]
"""Dimensions (name -> length), variables (name -> dtype, dimensions, values, attributes) and attributes of a file."""


def _read(given: Path, made: Path) -> object:
    """Do what ingest does with one file; what it says of the file is a sentence, as an exception would be."""
    places = {f"{number:064d}": path for number, path in enumerate(sorted(given.iterdir()))}
    scans = [scan_file(path, sha256, made / "members") for sha256, path in places.items()]
    if problem := next((scan.problem for scan in scans if not scan.members), None):
        raise ToldError(problem)
    members = [member for scan in scans for member in scan.members if member.entry]
    paths = places | {m.sha256: made / "members" / f"{m.sha256}.nc" for m in members}
    names = {sha256: path.name for sha256, path in places.items()}
    timeline = build_timeline([scan.model_copy(update={"problem": None}) for scan in scans], names, Recipe(), LAYOUT)
    with closing(SourceFiles(paths)) as files:
        for block in list_blocks(timeline, LAYOUT)[:2]:
            write_block(timeline, LAYOUT, files, made / "store", block, made / "scratch")
    return timeline


def _read_unit(given: Path, made: Path) -> object:
    return same_unit((given / "unit").read_bytes().decode(), "m s**-1")


def _make_unit(random: Random) -> Files:
    words = (
        "m",
        "s",
        "K",
        "kg",
        "**",
        "*",
        "/",
        "^",
        " ",
        "-",
        "(",
        ")",
        ".",
        "degC",
        "kilo",
        "%",
        "1e",
        "m s-1",
        "J m**-2",
    )
    parts = random.choices((*words, *words, *NUMBERS, *WORDS), k=random.choice((1, 2, 3, 5, 8, 30)))
    return {"unit": "".join(parts).encode(errors="replace")}


def _file(*, time: str, levels: bool, packed_as: str | None) -> Described:
    """Describe a file as the old or the new Climate Data Store makes them."""
    hours = np.arange(4) + 1_063_392 if time == "time" else (np.arange(4) * 3600 + 1_704_067_200)
    units = "hours since 1900-01-01 00:00:00.0" if time == "time" else "seconds since 1970-01-01"
    dims = {time: 4, "latitude": 3, "longitude": 4} | ({"pressure_level": 2} if levels else {})
    along = (time, *(("pressure_level",) if levels else ()), "latitude", "longitude")
    values = np.random.default_rng(0).normal(280, 5, [dims[d] for d in along])
    attributes: Described = {"units": "K", "long_name": "2 metre temperature", "standard_name": "air_temperature"}
    dtype = "f4"
    if packed_as:
        dtype, values = packed_as, np.round((values - 280) / 0.01)
        attributes |= {
            "scale_factor": 0.01,
            "add_offset": 280.0,
            "_FillValue": np.int16(-32767),
            "missing_value": -32767,
        }
    variables: Described = {
        time: ("i4" if time == "time" else "i8", (time,), hours, {"units": units, "calendar": "gregorian"}),
        "latitude": ("f4", ("latitude",), np.array([50.0, 49.5, 49.0]), {"units": "degrees_north"}),
        "longitude": ("f4", ("longitude",), np.arange(4) / 2, {"units": "degrees_east"}),
        "t2m": (dtype, along, values, attributes),
    }
    if levels:
        variables["pressure_level"] = ("f8", ("pressure_level",), np.array([850, 500]), {"units": "hPa"})
    return {"dimensions": dims, "variables": variables, "attributes": {"Conventions": "CF-1.7"}}


@cache
def _files() -> tuple[Described, ...]:
    forms = (("time", False, "i2"), ("time", True, "i2"), ("valid_time", False, None), ("valid_time", True, None))
    return tuple(_file(time=time, levels=levels, packed_as=form) for time, levels, form in forms)


UNITS = ("K", "m", "degrees_north", "degrees_east", "radians", "hPa", "Pa", "1", "level", "days since 2024-01-01",
         "hours since 0000-00-00", "months since 2000-01-01", "seconds since 1970-01-01",
         "hours since 1900-01-01 +25:00",
         "hours since ", "fortnights since 2024-01-01", "common_years since 1-1-1",
         "minutes since 9999999-01-01")  # fmt: skip
TEXTS = {
    "units": UNITS,
    "calendar": ("gregorian", "360_day", "noleap", "julian", "none", "martian", "proleptic_gregorian"),
    "standard_name": ("air_pressure", "latitude", "longitude", "time", "realization", "forecast_period",
                      "forecast_reference_time", "atmosphere_hybrid_sigma_pressure_coordinate"),
    "cell_methods": ("time: mean", "area: mean time: sum (interval: 1 hour)", "time: ", "time: mean (" * 30),
    "coordinates": ("number valid_time latitude longitude expver", "step", "t2m", "nothing " * 50),
    "bounds": ("time_bnds", "latitude", "t2m", ""), "axis": ("X", "Y", "Z", "T", "Q"), "positive": ("up", "down"),
    "GRIB_stepType": ("instant", "accum", "avg", "max"), "GRIB_typeOfLevel": ("isobaricInhPa", "hybrid", "surface"),
    "long_name": ("model level", "pressure", "accumulated", *WORDS), "grid_mapping": ("crs", "t2m", "latitude"),
    "_Unsigned": ("true", "false", "maybe"), "valid_range": (), "valid_min": (), "valid_max": (), "flag_values": (),
    "scale_factor": (), "add_offset": (), "missing_value": (), "_FillValue": (), "expver": (), "history": WORDS,
    "formula_terms": ("a: b", "ap: ap b: b ps: ps"), "compress": ("latitude longitude",), "leap_month": ("2",),
}  # fmt: skip


def _attribute(random: Random, name: str) -> Any:
    if random.random() < 0.6 and TEXTS.get(name):
        return random.choice(TEXTS[name])
    form = random.choice((np.float64, np.float32, np.int16, np.int32, np.uint8, np.int8))
    one = random.choice((0, 1, -1, 0.5, 1e-45, 1e300, float("nan"), float("inf"), -32767, 255, number(random)))
    with np.errstate(all="ignore"):
        value = np.array([one]).astype(form)
    return random.choice((value[0], value[0], value, np.repeat(value, 2), value[:0], random.choice(NUMBERS),
                          random.choice(WORDS), ["a", "b"], 9.969209968386869e36))  # fmt: skip


def _described(random: Random) -> Described:
    """Describe a file of which a few things are odd."""
    found = deepcopy(random.choice(_files()))
    for _ in some(random, 4):
        _change(random, found)
    return found


def _change(random: Random, found: Described) -> None:
    variables = found["variables"]
    name = random.choice(list(variables)) if variables else ""
    if not name:
        return
    dtype, along, values, attributes = variables[name]
    chance = random.random()
    if chance < 0.4:
        key = random.choice((*attributes, *TEXTS))
        attributes[key] = _attribute(random, key)
        if random.random() < 0.2:
            del attributes[key]
    elif chance < 0.6:
        variables[name] = (dtype, along, _values(random, np.asarray(values)), attributes)
    elif chance < 0.7:
        dtype = random.choice(("f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "S1", "str", "f4", "f8"))
        variables[name] = (dtype, along, values, attributes)
    elif chance < 0.75:
        del variables[name]
    elif chance < 0.9:
        _change_shape(random, found, name)
    else:
        other = random.choice(("time", "valid_time", "latitude", "lon", "level", "expver", "step", "number",
                               "time_bnds",
                               "isobaricInhPa", "heightAboveGround", "crs", "tp", "x", "forecast_reference_time",
                               *WORDS[14:20]))  # fmt: skip
        variables[other] = (dtype, along, values, deepcopy(attributes))
        if random.random() < 0.5:
            del variables[name]


def _values(random: Random, values: Any) -> Any:
    changed = np.array(values, np.float64).reshape(-1)
    if not changed.size:
        return values
    match random.randrange(6):
        case 0:
            changed[random.randrange(changed.size)] = random.choice(
                (0, float("nan"), float("inf"), 9.969209968386869e36, -1, 1e20, 90.1, 360, 1e300, number(random))
            )
        case 1:
            changed = changed[::-1].copy()
        case 2:
            changed[:] = changed[0]
        case 3:
            changed *= random.choice((-1, 0, 100, 1e9, 1e-9, float("nan")))
        case 4:
            changed += random.choice((1e12, -1e12, 0.5, 1e-7))
        case _:
            random.shuffle(order := list(range(changed.size)))
            changed = changed[order]
    return changed.reshape(np.shape(values))


def _change_shape(random: Random, found: Described, name: str) -> None:
    dimensions, variables = found["dimensions"], found["variables"]
    dtype, along, values, attributes = variables[name]
    match random.randrange(5):
        case 0:
            dimensions[random.choice(list(dimensions))] = random.choice((0, 1, 1, 2, 5, 300, None))
        case 1:
            dimensions[extra := random.choice(("number", "expver", "bnds", "z", "level", "step"))] = random.choice(
                (1, 2, 0)
            )
            variables[name] = (dtype, (*along, extra) if random.random() < 0.5 else (extra, *along), values, attributes)
        case 2:
            variables[name] = (dtype, along[:-1], values, attributes)
        case 3:
            variables[name] = (dtype, random.sample(along, len(along)), values, attributes)
        case _:
            old, new = random.choice(list(dimensions)), random.choice(("time", "lat", "y", "level", "values", "x"))
            if new not in dimensions:
                found["dimensions"] = {new if d == old else d: length for d, length in dimensions.items()}
                for key, (kind, dims, content, said) in list(variables.items()):
                    variables[key] = (kind, tuple(new if d == old else d for d in dims), content, said)


def _written(described: Described, form: str, random: Random) -> bytes:
    """Return a described file; what cannot be written of it is left out."""
    file = netCDF4.Dataset("memory.nc", "w", format=form, memory=1)
    place = file
    if form == "NETCDF4" and random.random() < 0.03:
        place = file.createGroup("inner")
    for name, length in described["dimensions"].items():
        place.createDimension(name, length)
    for name, (dtype, along, values, attributes) in described["variables"].items():
        with suppress(RuntimeError, TypeError, ValueError, LookupError, AttributeError, OverflowError, OSError):
            _write_variable(place, form, name, (dtype, along, values, attributes), random)
    for name, value in described["attributes"].items():
        file.setncattr(name, value)
    return bytes(file.close())


def _write_variable(place: Any, form: str, name: str, described: tuple[Any, ...], random: Random) -> None:
    dtype, along, values, attributes = described
    options: Described = {}
    if form == "NETCDF4" and random.random() < 0.3:
        options = random.choice(({"zlib": True}, {"fletcher32": True}, {"compression": "zstd"}, {"endian": "big"},
                                 {"compression": "bzip2"}, {"compression": "szip"}))  # fmt: skip
    variable = place.createVariable(name, str if dtype == "str" else dtype, along, **options)
    variable.set_auto_maskandscale(False)
    for key, value in attributes.items():
        with suppress(RuntimeError, TypeError, ValueError, AttributeError, OverflowError, OSError):
            variable.setncattr(key, value)
    shape = [length or 2 for length in variable.shape]
    with np.errstate(all="ignore"):
        content = np.resize(np.asarray(values), shape)
        variable[...] = content.astype(variable.dtype) if dtype not in ("S1", "str") else content.astype("S1")


def _make_netcdf(random: Random) -> Files:
    data = _written(_described(random), "NETCDF4", random)
    return _beside_another(random, mutate_bytes(random, data) if random.random() < 0.25 else data)


def _beside_another(random: Random, data: bytes) -> Files:
    """Return a file, sometimes with a good one that it must fit."""
    return {"a.nc": data} | ({"b.nc": random.choice(_plain())} if random.random() < 0.3 else {})


CLASSIC = ("NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA")


def _classic(random: Random) -> bytes:
    return _written(_described(random), random.choice(CLASSIC), random)


@cache
def _plain() -> tuple[bytes, ...]:
    return tuple(_written(described, form, Random(1)) for described in _files() for form in CLASSIC)


def _make_classic(random: Random) -> Files:
    if random.random() < 0.5:
        return _beside_another(random, _classic(random))
    data = bytearray(random.choice(_plain()))
    for _ in some(random):  # numbers of the header stand at multiples of 4
        at = 4 * random.randrange(1 if random.random() < 0.9 else 0, min(len(data), 900) // 4)
        form = random.choice((">I", ">I", ">Q", ">H"))
        written = packed(random, form) if random.random() < 0.7 else struct.pack(">I", random.randrange(13))
        data[at : at + len(written)] = written
    return {"a.nc": mutate_bytes(random, bytes(data)) if random.random() < 0.2 else bytes(data)}


def _make_zip(random: Random) -> Files:
    buffer = io.BytesIO()
    names = [
        "data_stream-oper.nc",
        "b.nc",
        "read me.txt",
        "../../evil.nc",
        "/etc/evil.nc",
        "d/",
        "é.nc",
        "a" * 300,
        "b.nc",
    ]
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in random.sample(names, random.choice((0, 1, 2, 3))):
            data = random.choice((*_plain(), _classic(random), b"hello", b"", bytes(2_000_000)))
            method = random.choice((0, 8, 8, 12, 14))
            archive.writestr(zipfile.ZipInfo(name), data, cast(int, method))
    data = buffer.getvalue()
    for _ in some(random, 3):
        data = _change_zip(random, data)
    return {"a.zip": mutate_bytes(random, data) if random.random() < 0.3 else data}


def _change_zip(random: Random, data: bytes) -> bytes:
    """Change a field of a local header, of the directory, or of its end."""
    mark = random.choice((b"PK\3\4", b"PK\1\2", b"PK\1\2", b"PK\5\6"))
    places = [at for at in range(len(data)) if data.startswith(mark, at)] if len(data) < 200_000 else [data.rfind(mark)]
    if not places or random.random() < 0.3:
        return data
    at = random.choice(places) + random.choice((4, 6, 8, 10, 12, 14, 16, 18, 20, 24, 26, 28, 30, 34, 42))
    written = packed(random, random.choice(("<H", "<I")))
    return data[:at] + written + data[at + len(written) :]


CODE = ("tasks.era5.catalog", "tasks.era5.timeline", "tasks.era5.block", "tasks.era5.source_files")
READERS = (
    Reader("netcdf", CODE, _make_netcdf, _read, least=50),
    Reader("netcdf_classic", CODE, _make_classic, _read, least=100),
    Reader("netcdf_zip", CODE, _make_zip, _read, least=50),
    Reader("unit", ("tasks.era5.cf_units",), _make_unit, _read_unit),
)
