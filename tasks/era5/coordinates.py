"""The coordinates of NetCDF files as CF means them: decoded like data, in degrees and hPa, and no bounds."""

from __future__ import annotations

import re

import netCDF4
import numpy as np
from numpy.typing import NDArray

from tasks.era5.netcdf import UnusableError, missing_values, packing

LEVELS = ("pressure_level", "isobaricInhPa", "level", "plev", "pressure", "lev", "isobaric", "isobaricInPa")
"""Names of coordinates that may be pressure levels."""

_NAMES_OF_PRESSURE = frozenset(LEVELS) - {"level", "lev"}
_HPA = {"hpa": 1.0, "millibar": 1.0, "millibars": 1.0, "mbar": 1.0, "mb": 1.0, "pa": 0.01}
_HIGHEST_HPA = 1100
_STANDARD_HPA = frozenset(
    (1, 2, 3, 5, 7, 10, 20, 30, 50, 70, *range(100, 251, 25), *range(300, 751, 50), *range(775, 1001, 25))
)
_MODEL_LEVELS = 137
_MODEL = re.compile(r"model|hybrid|sigma|eta\b|theta|potential", re.IGNORECASE)
_OTHER = re.compile(rf"{_MODEL.pattern}|depth|height|altitude|soil|layer", re.IGNORECASE)
_GRID_NAMES = re.compile(r"(grid|projection)_\w+")


def text(holder: netCDF4.Variable | netCDF4.Dataset, attribute: str) -> str:
    """Return an attribute as text; empty where there is none."""
    return str(holder.getncattr(attribute)).strip() if attribute in holder.ncattrs() else ""


def values(variable: netCDF4.Variable) -> NDArray:
    """Return a coordinate's values decoded by the CF rules, NaN where missing; whole numbers stay what they are."""
    raw, attributes = np.atleast_1d(variable[...]), packing(variable)
    if raw.dtype.kind not in "iuf":
        raise UnusableError(f"has a {variable.name} that is not numbers")
    missing = np.isin(raw, missing_values(variable))
    if str(attributes.get("_Unsigned", "")).lower() == "true":
        raw = raw.view(f"u{raw.dtype.itemsize}")
    if not attributes.keys().isdisjoint(("scale_factor", "add_offset")):
        raw = raw * np.float64(attributes.get("scale_factor", 1)) + np.float64(attributes.get("add_offset", 0))
    if missing.any():
        raw = np.where(missing, np.nan, raw.astype(np.float64))
    return raw


def described(dataset: netCDF4.Dataset) -> str:
    """Return the dimensions and their lengths, for messages."""
    lengths = ", ".join(f"{name} {d.size}" for name, d in dataset.dimensions.items())
    return f"dimensions: {lengths or 'none'}"


def listed(holder: netCDF4.Variable | netCDF4.Dataset) -> list[str]:
    """Return the names in the `coordinates` attribute."""
    return text(holder, "coordinates").split()


def bounds(dataset: netCDF4.Dataset) -> set[str]:
    """Return the variables that bound the cells of coordinates, which are no coordinates themselves."""
    variables = dataset.variables
    named = {text(v, attribute) for v in variables.values() for attribute in ("bounds", "climatology")}
    return (named | {name for name in variables if re.search(r"_(bnds|bounds|bnd)$", name)}) & variables.keys()


def horizontal_axes(dataset: netCDF4.Dataset) -> tuple[netCDF4.Variable, netCDF4.Variable]:
    """Return latitude and longitude: each along a dimension of its own, or one value."""
    latitude, longitude = _horizontal(dataset, "latitude", "north"), _horizontal(dataset, "longitude", "east")
    if latitude.dimensions == longitude.dimensions and latitude.size > 1:
        raise UnusableError(
            f"has latitude and longitude along the same dimension {latitude.dimensions[0]} (a reduced Gaussian grid, "
            f"or scattered points); interpolate it to a regular grid, e.g. with `cdo setgridtype,regular`"
        )
    return latitude, longitude


def _horizontal(dataset: netCDF4.Dataset, name: str, direction: str) -> netCDF4.Variable:
    aside = bounds(dataset)
    found = [
        v for v in dataset.variables.values() if v.name not in aside and _is_horizontal(v, name, direction) and v.size
    ]
    axes = [v for v in found if v.ndim == 1 and v.name == v.dimensions[0]] or [v for v in found if v.ndim == 1]
    if any(v.ndim == 2 and (not axes or axes[0].dimensions[0] in v.dimensions) for v in found):
        raise UnusableError(
            f"has a {name} with two dimensions (a projected or rotated grid); regrid it to latitude and longitude"
        )
    axes = axes or [v for v in found if v.ndim == 0]
    if not axes:
        raise UnusableError(
            f"has no {name} axis ({described(dataset)}); only fields on a latitude-longitude grid can be stored"
        )
    return axes[0]


def _is_horizontal(variable: netCDF4.Variable, name: str, direction: str) -> bool:
    units = text(variable, "units").lower()
    return (
        variable.name.lower() in (name, name[:3])
        or text(variable, "standard_name") == name
        or (units.startswith("degree") and units.endswith(direction))
    )


def degrees(variable: netCDF4.Variable, direction: str) -> NDArray:
    """Return a latitude or longitude in degrees; `UnusableError` where it has any other unit."""
    units, meaning = text(variable, "units"), text(variable, "standard_name")
    if _GRID_NAMES.fullmatch(meaning):
        raise UnusableError(f"has a {variable.name} that is a {meaning}; regrid it to latitude and longitude")
    if units and not re.fullmatch(rf"(°|deg(ree)?s?)[ _]*({direction[0]}|{direction})?", units, re.IGNORECASE):
        raise UnusableError(f"has a {variable.name} in {units!r}; convert it to degrees {direction}")
    return values(variable)


def is_level(variable: netCDF4.Variable) -> bool:
    """Say whether a coordinate may be pressure levels, by its name, unit or meaning."""
    return (
        variable.name in LEVELS
        or text(variable, "standard_name") == "air_pressure"
        or text(variable, "units").lower() in _HPA
    )


def pressures(coordinate: netCDF4.Variable) -> tuple[int, ...] | None:
    """Return levels in hPa; None for one level that nothing says to be a pressure. `UnusableError` for all others."""
    name, units = coordinate.name, text(coordinate, "units").lower()
    meaning = f"{text(coordinate, 'standard_name')} {text(coordinate, 'long_name')}"
    decoded = values(coordinate).astype(np.float64).ravel()
    factor = _HPA.get(units)
    if factor is None and units in ("", "1", "level", "~"):
        said = name in _NAMES_OF_PRESSURE or re.search(r"pressure|isobaric|hpa|millibar", meaning, re.IGNORECASE)
        bare = not meaning.strip() or meaning.split() == ["level"]
        usual = set(decoded.tolist()) <= _STANDARD_HPA and decoded.max() > _MODEL_LEVELS
        factor = 1.0 if units == "" and (said or (bare and usual)) else None
    if units not in _HPA:
        if (factor is None or _OTHER.search(meaning)) and decoded.size == 1 and not _MODEL.search(meaning):
            return None
        factor = None if _OTHER.search(meaning) else factor
    if factor is None:
        also = f", but {meaning.strip()!r}" if meaning.strip() else ""
        raise UnusableError(
            f"lies on {name}s that are not pressures in hPa{also} (units {units!r}); interpolate it to pressure "
            f"levels, or give the levels their units"
        )
    levels = decoded * factor
    if not np.allclose(levels, np.round(levels), atol=1e-3) or not (levels > 0).all():
        raise UnusableError(f"lies on pressure levels that are not whole hPa ({levels.tolist()})")
    if levels.max() > _HIGHEST_HPA:
        raise UnusableError(f"lies on levels up to {levels.max():g} hPa, which no air has; correct their units")
    if len(set(levels.round().tolist())) < len(levels):
        raise UnusableError(f"holds a pressure level twice ({levels.tolist()}); drop one of the two")
    return tuple(round(level) for level in levels.tolist())
