"""What NetCDF files are: recognised by their first bytes, checked for truncation, decoded by the CF rules."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
from numpy.typing import NDArray

AXES = ("time", "level", "latitude", "longitude")
"""The roles that a plane's dimensions may have; any other dimension has one element, or one that is chosen."""

NETCDF_LOCK = threading.RLock()
"""The NetCDF and HDF5 libraries are not safe in threads: every use of an open file holds this lock."""

Decoder = Callable[[NDArray], NDArray[np.float32]]

_CLASSIC = (b"CDF\x01", b"CDF\x02", b"CDF\x05")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_TYPE_BYTES = dict(zip(range(1, 12), (1, 1, 2, 4, 4, 8, 1, 2, 4, 8, 8), strict=True))
_FILTERS = {
    4: "szip",
    307: "bzip2",
    32000: "LZF",
    32001: "Blosc",
    32004: "LZ4",
    32008: "bitshuffle",
    32013: "ZFP",
    32015: "Zstandard",
    32017: "SZ",
    32018: "FCIDECOMP",
    32019: "JPEG",
    32024: "SZ3",
    32026: "Blosc2",
    32028: "SPERR",
}
_MOST_FILTERS = 32


class UnusableError(ValueError):
    """Content that cannot be ingested; the message is a predicate without the file's name."""


def sniff(path: Path) -> str:
    """Return `netcdf` or `zip` by the first bytes; `UnusableError` says what anything else is and what to do."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith((*_CLASSIC, _HDF5)):
        return "netcdf"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    raise UnusableError(_foreign(head))


def _foreign(head: bytes) -> str:
    text = head.lstrip().lower()
    if not head:
        return "is empty; download it again"
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not data; run `git lfs pull`"
    if head.startswith(b"GRIB"):
        return "is GRIB, not NetCDF; convert it with `cdo -f nc4 copy`, or request data_format netcdf"
    if text.startswith((b"<", b"{")):
        return "is an HTML or JSON page, probably the error message of a server; download the data again"
    if head.startswith(b"\x1f\x8b"):
        return "is compressed with gzip; unpack it with `gunzip`"
    if head.startswith((b"PK\x05\x06", b"PK\x07\x08")):
        return "is a ZIP archive without content; download it again"
    return f"is not NetCDF (it begins with {head[:8]!r}); leave it out or convert it to NetCDF"


def open_netcdf(path: Path) -> netCDF4.Dataset:
    """Open for reading, with values as stored; `UnusableError` where the library refuses or bytes are missing."""
    with path.open("rb") as file:
        if file.read(4) in _CLASSIC:
            _require_whole_classic(path)
    try:
        with NETCDF_LOCK:
            dataset = netCDF4.Dataset(path, "r")
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnusableError(f"is a damaged or cut-off NetCDF file ({reason}); download it again") from error
    except UnicodeDecodeError:
        raise UnusableError("is damaged: it has names that are no UTF-8; download it again") from None
    dataset.set_auto_maskandscale(False)
    dataset.set_auto_chartostring(False)
    return dataset


def _require_whole_classic(path: Path) -> None:
    """Refuse a truncated classic file: the C library would read its missing part as zeros."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            needed = _ClassicHeader(file, size).needed_bytes()
    except (struct.error, IndexError, KeyError) as error:
        raise UnusableError("has a damaged or cut-off classic NetCDF header; download it again") from error
    if size < needed:
        raise UnusableError(f"is cut off: {size:,} bytes of the {needed:,} that its header promises; download it again")


class _ClassicHeader:
    """The header of a classic NetCDF file (CDF-1, CDF-2, CDF-5), as far as its size needs it."""

    def __init__(self, file: BufferedReader, size: int) -> None:
        self._file, self._size = file, size
        version = file.read(4)[3]
        self._count = ">q" if version == 5 else ">i"
        self._offset = ">i" if version == 1 else ">q"

    def _number(self, kind: str = ">i") -> int:
        return struct.unpack(kind, self._file.read(struct.calcsize(kind)))[0]

    def _skip(self, count: int) -> None:
        if not 0 <= count <= self._size - self._file.tell():
            raise struct.error("cut off")
        self._file.seek(count + -count % 4, os.SEEK_CUR)

    def _list_length(self) -> int:
        self._number()
        return self._number(self._count)

    def _skip_name(self) -> None:
        self._skip(self._number(self._count))

    def _skip_attributes(self) -> None:
        for _ in range(self._list_length()):
            self._skip_name()
            item_bytes = _TYPE_BYTES[self._number()]
            self._skip(item_bytes * self._number(self._count))

    def needed_bytes(self) -> int:
        """Return the smallest size of a file that holds everything the header lists."""
        records = self._number(self._count)
        lengths = []
        for _ in range(self._list_length()):
            self._skip_name()
            lengths.append(self._number(self._count))
        self._skip_attributes()
        fixed_end, record_starts, record_bytes = self._file.tell(), [], []
        for _ in range(self._list_length()):
            self._skip_name()
            shape = [lengths[self._number(self._count)] for _ in range(self._number(self._count))]
            self._skip_attributes()
            item_bytes = _TYPE_BYTES[self._number()]
            self._number(self._count)
            begin = self._number(self._offset)
            if shape and shape[0] == 0:  # the record dimension
                record_starts.append(begin)
                record_bytes.append(item_bytes * int(np.prod(shape[1:], dtype=np.int64)))
            else:
                fixed_end = max(fixed_end, begin + item_bytes * int(np.prod(shape, dtype=np.int64)))
        return max(fixed_end, _record_end(records, record_starts, record_bytes))


def _record_end(records: int, starts: list[int], sizes: list[int]) -> int:
    """Return where the last record ends; records of several variables interleave, each padded to 4 bytes."""
    if records <= 0 or not starts:  # -1: still being streamed
        return 0
    stride = sizes[0] if len(sizes) == 1 else sum(size + -size % 4 for size in sizes)
    return max(start + (records - 1) * stride + size for start, size in zip(starts, sizes, strict=True))


def packing(variable: netCDF4.Variable) -> dict[str, Any]:
    """Return the attributes that say how stored values become real ones; `UnusableError` where one is not a number."""
    found: dict[str, Any] = {}
    for name in ("_FillValue", "_Unsigned", "add_offset", "missing_value", "scale_factor"):
        if name not in variable.ncattrs():
            continue
        value = found[name] = variable.getncattr(name)
        if name == "_Unsigned":
            if str(value).lower() not in ("true", "false"):
                raise UnusableError(f"has the _Unsigned {value!r}, which is neither true nor false; correct it")
            continue
        numbers = np.ravel(value)
        usable = numbers.dtype.kind in "iuf" and numbers.size > 0
        if name != "missing_value":
            usable = usable and numbers.size == 1
        if name in ("add_offset", "scale_factor"):
            usable = usable and bool(np.isfinite(numbers).all()) and (name == "add_offset" or bool(numbers.all()))
        if not usable:
            written = value if isinstance(value, str) else numbers.tolist()
            raise UnusableError(f"has the {name} {written!r}, which is not one usable number; correct it (`ncatted`)")
        if numbers.size == 1:
            found[name] = numbers[0]
    return found


def is_unsigned(variable: netCDF4.Variable) -> bool:
    """Whether what is stored as signed numbers is meant as unsigned ones, which classic files do not have."""
    return np.dtype(variable.dtype).kind == "i" and str(packing(variable).get("_Unsigned", "")).lower() == "true"


def valid_bounds(variable: netCDF4.Variable) -> tuple[NDArray, NDArray] | None:
    """Return the lowest and the highest valid value, None where nothing says it; `UnusableError` where one is none.

    They are about stored values, unless these are whole numbers and the bounds are not.
    """
    dtype = np.dtype(variable.dtype)
    range_of = (
        np.finfo(dtype) if dtype.kind == "f" else np.iinfo(f"u{dtype.itemsize}" if is_unsigned(variable) else dtype)
    )
    found: list[Any] = [range_of.min, range_of.max]
    names = [name for name in ("valid_range", "valid_min", "valid_max") if name in variable.ncattrs()]
    for name in names:
        value, count = np.ravel(variable.getncattr(name)), 2 if name == "valid_range" else 1
        if value.dtype.kind not in "iuf" or value.size != count:
            numbers = "two numbers" if count == 2 else "one number"
            raise UnusableError(f"has the {name} {value.tolist()!r}, which is not {numbers}; correct it (`ncatted`)")
        found = [*value] if count == 2 else [value[0], found[1]] if name == "valid_min" else [found[0], value[0]]
    return (np.asarray(found[0]), np.asarray(found[1])) if names else None


def _misspelt(variable: netCDF4.Variable) -> list[str]:
    """Return the attributes with numbers that are meant for `_FillValue` or `missing_value`, e.g. `fill_value`."""
    meant = [name for name in variable.ncattrs() if name.lower().replace("_", "") in ("fillvalue", "missingvalue")]
    others = [name for name in meant if name not in ("_FillValue", "missing_value")]
    return [name for name in others if np.ravel(variable.getncattr(name)).dtype.kind in "iuf"]


def missing_values(variable: netCDF4.Variable) -> NDArray:
    """Return what stands for missing among stored values, NaN aside: as marked, and what NetCDF fills unmarked with."""
    attributes, dtype = packing(variable), np.dtype(variable.dtype)
    marked = [np.ravel(attributes[name]) for name in ("_FillValue", "missing_value") if name in attributes]
    marked += [np.ravel(variable.getncattr(name)) for name in _misspelt(variable)]
    if dtype.kind == "f" or ("_FillValue" not in attributes and dtype.itemsize > 1 and variable.get_fill_value()):
        marked.append(np.array([netCDF4.default_fillvals[dtype.str[1:]]]))
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            cast = np.concatenate(marked).astype(dtype)
        return cast[~np.isnan(cast)]
    return np.concatenate([*marked, np.array([], dtype)])


def decoder(variable: netCDF4.Variable) -> Decoder:
    """Return what turns stored values into float32 with NaN where missing.

    The arithmetic is xarray's own, so results equal `xarray.open_dataset(...)` cast to float32 bit by bit. Beyond that,
    fill values count whose type is not that of the data, several missing values, those that NetCDF fills with, and what
    is outside of the valid range.
    """
    attributes, dtype, blank = packing(variable), np.dtype(variable.dtype), _blanking(variable)
    if dtype == np.float32 and attributes.keys() <= {"_FillValue", "missing_value"}:
        return lambda raw: blank(raw, raw)  # unpacked files do without xarray's second of start
    if np.size(attributes.get("missing_value", 0)) > 1:
        del attributes["missing_value"]

    import xarray as xr

    def decode(raw: NDArray) -> NDArray[np.float32]:
        stored = xr.Variable([f"d{i}" for i in range(raw.ndim)], raw, dict(attributes))
        decoded = xr.conventions.decode_cf_variable(variable.name, stored, decode_times=False, decode_timedelta=False)
        with np.errstate(over="ignore"):  # what is too large for float32 is refused as infinite
            return blank(decoded.values.astype(np.float32), raw)

    if dtype.kind in "iu" and dtype.itemsize <= 2:
        native, index = dtype.newbyteorder("="), np.dtype(f"u{dtype.itemsize}")
        table = decode(np.arange(1 << 8 * dtype.itemsize).astype(index).view(native))
        return lambda raw: table[raw.astype(native, copy=False).view(index)]
    return decode


def _blanking(variable: netCDF4.Variable) -> Callable[[NDArray[np.float32], NDArray], NDArray[np.float32]]:
    """Return what sets values to NaN, in place, where what was stored is a fill value or is not valid."""
    fills, bounds, dtype = missing_values(variable), valid_bounds(variable), np.dtype(variable.dtype)
    stored: np.dtype = np.dtype(f"u{dtype.itemsize}") if is_unsigned(variable) else dtype

    def blank(values: NDArray[np.float32], raw: NDArray) -> NDArray[np.float32]:
        missing = np.zeros(raw.shape, bool)
        for fill in fills:
            missing |= raw == fill
        if bounds:
            of_values = dtype.kind in "iu" and "f" in (bounds[0].dtype.kind + bounds[1].dtype.kind)
            held = values if of_values else raw.astype(dtype.newbyteorder("="), copy=False).view(stored)
            low, high = (bound.astype(held.dtype) for bound in bounds)
            missing |= (held < low) | (held > high)
        if missing.any():
            values[missing] = np.nan
        return values

    return blank


def require_filters(variable: netCDF4.Variable) -> None:
    """Refuse values that were compressed by an HDF5 filter that is not installed; reading would call them damaged."""
    library = ctypes.CDLL(sys.modules[netCDF4.Dataset.__module__].__file__)
    count, filters = ctypes.c_size_t(), (ctypes.c_uint * _MOST_FILTERS)()
    if library.nc_inq_var_filter_ids(variable._grpid, variable._varid, ctypes.byref(count), filters):
        return
    for number in filters[: count.value]:
        if library.nc_inq_filter_avail(variable._grpid, ctypes.c_uint(number)):
            name = f"{_FILTERS[number]} (HDF5 filter {number})" if number in _FILTERS else f"HDF5 filter {number}"
            raise UnusableError(
                f"is compressed with {name}, which is not installed; `pip install hdf5plugin` and set HDF5_PLUGIN_PATH "
                f"to its hdf5plugin.PLUGIN_PATH, or write the file again with `nccopy -d 1` where it can be read"
            )


def read_box(variable: netCDF4.Variable, roles: Sequence[str], selection: Mapping[str, slice]) -> NDArray:
    """Return stored values as (time, level, latitude, longitude), with length 1 for axes that the variable lacks.

    `roles` names what each stored dimension is. What `selection` does not name is whole for latitude and
    longitude, and the first element for any other.
    """
    default = dict.fromkeys(("latitude", "longitude"), slice(None))
    with NETCDF_LOCK:
        box = variable[tuple(selection.get(role, default.get(role, slice(0, 1))) for role in roles)]
    axes = [roles.index(role) for role in AXES if role in roles]
    others = [axis for axis in range(len(roles)) if axis not in axes]
    lengths = [box.shape[roles.index(role)] if role in roles else 1 for role in AXES]
    return box.transpose(axes + others).reshape(lengths)
