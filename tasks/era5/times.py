"""The times of a NetCDF file's steps: when its values hold, in seconds since 1970."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

import netCDF4
import numpy as np
from numpy.typing import NDArray

from tasks.era5.coordinates import described, text, values
from tasks.era5.netcdf import UnusableError

_TIMES = ("valid_time", "time", "date")
_LEADS = ("step", "forecast_period", "leadtime", "lead_time")
_CALENDARS = ("standard", "gregorian", "proleptic_gregorian")
_UNIT_SECONDS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86_400),
}
_PARTS_OF_SECONDS = {"milliseconds": 1e-3, "microseconds": 1e-6, "nanoseconds": 1e-9}
_FARTHEST = 500 * 366 * 86_400


@dataclass(frozen=True, slots=True)
class Times:
    """The times of a file, and the dimension that they lie along; none where there is one time for all."""

    seconds: NDArray[np.int64]
    dimension: str | None
    coordinates: frozenset[str]
    """Names of the variables that they were read from."""


def read_times(dataset: netCDF4.Dataset) -> Times:
    """Return when the values of a file hold; a forecast holds at its start and its step together."""
    coordinate = _time_coordinate(dataset)
    seconds = _seconds(coordinate)
    dimension = _dimension(coordinate)
    times = Times(seconds, dimension, frozenset({coordinate.name}))
    if coordinate.name == "valid_time":
        return times
    lead = _lead(dataset)
    if lead is None:
        if text(coordinate, "standard_name") == "forecast_reference_time":
            raise UnusableError("tells when its forecasts start, but not for when they hold; add a valid_time or step")
        return times
    return _advanced(times, lead, _duration(lead))


def is_time(variable: netCDF4.Variable) -> bool:
    """Say whether a variable holds times or durations."""
    units = text(variable, "units")
    return " since " in units or units.lower() in _UNIT_SECONDS or units.lower() in _PARTS_OF_SECONDS


def _time_coordinate(dataset: netCDF4.Dataset) -> netCDF4.Variable:
    variables = dataset.variables
    others = [
        name
        for name, variable in variables.items()
        if name not in _TIMES and text(variable, "standard_name") in ("time", "forecast_reference_time")
    ]
    for name in (*_TIMES, *others):
        if name not in variables:
            continue
        variable = variables[name]
        if sum(n > 1 for n in variable.shape) > 1:
            raise UnusableError(
                f"has a {name} with two dimensions ({', '.join(variable.dimensions)}); flatten it to one time axis"
            )
        if variable.size and (" since " in text(variable, "units") or name == "date"):
            return variable
    if called := [name for name in _TIMES if name in variables and text(variables[name], "units")]:
        units = text(variables[called[0]], "units")
        raise UnusableError(f"has a {called[0]} in {units!r}; convert it to e.g. hours since a date")
    raise UnusableError(
        f"has no time coordinate ({described(dataset)}), as climatologies have none; give files with a time or "
        f"valid_time coordinate"
    )


def _dimension(coordinate: netCDF4.Variable) -> str | None:
    long = [name for name, n in zip(coordinate.dimensions, coordinate.shape, strict=True) if n > 1]
    return next(iter([*long, *coordinate.dimensions]), None)


def _lead(dataset: netCDF4.Dataset) -> netCDF4.Variable | None:
    """Return the coordinate that says how long after their start forecasts hold."""
    for name, variable in dataset.variables.items():
        if (name in _LEADS or text(variable, "standard_name") == "forecast_period") and variable.ndim < 2:
            return variable
    return None


def _duration(lead: netCDF4.Variable) -> NDArray[np.int64]:
    units = text(lead, "units").lower()
    factor = _UNIT_SECONDS.get(units, _PARTS_OF_SECONDS.get(units))
    if factor is None:
        raise UnusableError(f"has a {lead.name} in {units!r}; add a valid_time, or units such as hours")
    durations = values(lead).astype(np.float64) * factor
    if not np.isfinite(durations).all():
        raise UnusableError(f"has missing values in its {lead.name}; repair or leave it out")
    return np.rint(durations).astype(np.int64)


def _advanced(times: Times, lead: netCDF4.Variable, durations: NDArray[np.int64]) -> Times:
    """Return the times at which forecasts hold that start at some times and reach so far."""
    starts, along = times.seconds, _dimension(lead)
    if len(starts) > 1 and len(durations) > 1 and along != times.dimension:
        raise UnusableError(
            f"has {len(starts)} starts and {len(durations)} forecast steps without a valid_time; flatten it to one "
            f"time axis"
        )
    dimension = along if len(durations) > 1 or times.dimension is None else times.dimension
    return Times(starts + durations, dimension, times.coordinates | {lead.name})


def _seconds(coordinate: netCDF4.Variable) -> NDArray[np.int64]:
    decoded, units = values(coordinate).ravel(), text(coordinate, "units")
    if " since " in units:
        seconds = seconds_since_1970(decoded, units, text(coordinate, "calendar") or "standard")
        if coordinate.dtype == np.float32:
            _require_exact(coordinate, decoded, seconds, units)
        return seconds
    try:
        if (decoded % 1).any():
            raise ValueError("fractions of days")
        days = [f"{str(int(v))[:4]}-{str(int(v))[4:6]}-{str(int(v))[6:]}" for v in decoded]
        return np.array(days, "datetime64[D]").astype("datetime64[s]").astype(np.int64)
    except ValueError as error:
        raise UnusableError(f"has dates that are not YYYYMMDD, such as {decoded[0]}; add a time coordinate") from error


def _require_exact(coordinate: netCDF4.Variable, decoded: NDArray, seconds: NDArray[np.int64], units: str) -> None:
    """Refuse times that float32 has no digits for; whole hours are true whatever their type."""
    unit = units.split()[0].lower()
    coarse = float(np.spacing(np.abs(decoded).max().astype(np.float32))) * _UNIT_SECONDS[unit]
    if coarse > 1 and (seconds % 3600).any():
        raise UnusableError(
            f"holds its {coordinate.name} as float32 {unit}, which rounds times by up to {coarse / 2:.0f} s; write "
            f"them as float64 or as whole seconds, or as {unit} since a later date"
        )


def seconds_since_1970(decoded: NDArray, units: str, calendar: str) -> NDArray[np.int64]:
    """Decode a CF time coordinate exactly: `([24], "hours since 1970-01-01", "standard") => [86400]`."""
    if calendar.lower() not in _CALENDARS:
        raise UnusableError(f"has times in a {calendar} calendar; ERA5 times are Gregorian, convert them")
    parts = re.fullmatch(r"\s*(\w+)\s+since\s+(.+?)\s*", units)
    if parts is None or parts[1].lower() not in _UNIT_SECONDS:
        raise UnusableError(f"has times in {units!r}; convert them to seconds, minutes, hours or days since a date")
    wide = decoded.astype(np.int64 if decoded.dtype.kind in "iu" else np.float64) * _UNIT_SECONDS[parts[1].lower()]
    if not (np.abs(wide) < 2**50).all():  # fill values and NaN too
        raise UnusableError("has missing values in its time coordinate; repair or leave it out")
    try:
        shift = int(netCDF4.date2num(datetime(1970, 1, 1), f"seconds since {parts[2]}", calendar.lower()))
    except (ValueError, TypeError, OverflowError) as error:
        raise UnusableError(f"has times in {units!r}, which is no date to count from ({error})") from error
    seconds = np.rint(wide).astype(np.int64) - shift
    if (np.abs(seconds) > _FARTHEST).any():
        year = int(seconds[np.abs(seconds).argmax()] / 31_556_952) + 1970
        raise UnusableError(f"has a time in the year {year}; correct its time coordinate")
    return seconds
