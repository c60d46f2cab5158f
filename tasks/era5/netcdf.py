"""What NetCDF files are: recognised by their first bytes, checked for truncation, decoded by the CF rules."""

from __future__ import annotations

import re
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from io import BufferedReader
from pathlib import Path

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
_CALENDARS = ("standard", "gregorian", "proleptic_gregorian")
_UNIT_SECONDS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86_400),
}


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
        return "is GRIB, not NetCDF; request data_format netcdf, or convert it (e.g. `grib_to_netcdf`, cfgrib)"
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
    dataset.set_auto_maskandscale(False)
    dataset.set_auto_chartostring(False)
    return dataset


def _require_whole_classic(path: Path) -> None:
    """Refuse a truncated classic file: the C library would read its missing part as zeros."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            needed = _ClassicHeader(file).needed_bytes()
    except (struct.error, IndexError, KeyError, MemoryError) as error:
        raise UnusableError("has a damaged or cut-off classic NetCDF header; download it again") from error
    if size < needed:
        raise UnusableError(f"is cut off: {size:,} bytes of the {needed:,} that its header promises; download it again")


class _ClassicHeader:
    """The header of a classic NetCDF file (CDF-1, CDF-2, CDF-5), as far as its size needs it."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        version = file.read(4)[3]
        self._count = ">q" if version == 5 else ">i"
        self._offset = ">i" if version == 1 else ">q"

    def _number(self, kind: str = ">i") -> int:
        return struct.unpack(kind, self._file.read(struct.calcsize(kind)))[0]

    def _skip(self, count: int) -> None:
        if len(self._file.read(padded := count + -count % 4)) < padded:
            raise struct.error("cut off")

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


def seconds_since_1970(values: NDArray, units: str, calendar: str) -> NDArray[np.int64]:
    """Decode a CF time coordinate exactly: `([24], "hours since 1970-01-01", "standard") => [86400]`."""
    if calendar.lower() not in _CALENDARS:
        raise UnusableError(f"has times in a {calendar} calendar; ERA5 times are Gregorian, convert them")
    parts = re.fullmatch(r"\s*(\w+)\s+since\s+(.+?)\s*", units)
    if parts is None or parts[1].lower() not in _UNIT_SECONDS:
        raise UnusableError(f"has times in {units!r}; convert them to seconds, minutes, hours or days since a date")
    wide = values.astype(np.int64 if values.dtype.kind in "iu" else np.float64) * _UNIT_SECONDS[parts[1].lower()]
    if not (np.abs(wide) < 2**50).all():  # fill values and NaN too
        raise UnusableError("has missing values in its time coordinate; repair or leave it out")
    try:
        shift = netCDF4.date2num(datetime(1970, 1, 1), f"seconds since {parts[2]}", calendar.lower())
    except ValueError as error:
        raise UnusableError(f"has times in {units!r}, which is no date to count from ({error})") from error
    return np.rint(wide).astype(np.int64) - int(shift)


def decoder(variable: netCDF4.Variable) -> Decoder | None:
    """Return what turns stored values into float32 with NaN where missing; None where they are that already.

    The arithmetic is xarray's own, so results equal `xarray.open_dataset(...)` cast to float32 bit by bit.
    """
    names = set(variable.ncattrs()) & {"scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned"}
    attributes = {name: variable.getncattr(name) for name in sorted(names)}
    dtype = np.dtype(variable.dtype)
    fills = [np.ravel(attributes[name]) for name in names & {"_FillValue", "missing_value"}]
    if dtype == np.float32 and names <= {"_FillValue", "missing_value"} and all(np.isnan(f).all() for f in fills):
        return None

    import xarray as xr  # unpacked files do without its second of start

    def decode(raw: NDArray) -> NDArray[np.float32]:
        stored = xr.Variable([f"d{i}" for i in range(raw.ndim)], raw, dict(attributes))
        decoded = xr.conventions.decode_cf_variable(variable.name, stored, decode_times=False, decode_timedelta=False)
        return decoded.values.astype(np.float32)

    if dtype.kind in "iu" and dtype.itemsize <= 2:
        native, index = dtype.newbyteorder("="), np.dtype(f"u{dtype.itemsize}")
        table = decode(np.arange(1 << 8 * dtype.itemsize).astype(index).view(native))
        return lambda raw: table[raw.astype(native, copy=False).view(index)]
    return decode


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
