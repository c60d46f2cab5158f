"""What the Climate Data Store writes beside the numbers: the GRIB and CF description of every variable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.samples.weather_earth import Grid

CENTRE = "European Centre for Medium-Range Weather Forecasts"
HISTORY = "generated sample in the file layout of the Climate Data Store; not ERA5"


@dataclass(frozen=True, slots=True)
class Description:
    """One ERA5 variable as GRIB knows it."""

    grib_name: str
    parameter: int
    long_name: str
    units: str
    standard_name: str = "unknown"
    accumulated: bool = False
    on_levels: bool = False


def _upper(grib_name: str, parameter: int, long_name: str, units: str, standard_name: str) -> Description:
    return Description(grib_name, parameter, long_name, units, standard_name, on_levels=True)


DESCRIPTIONS: dict[str, Description] = {
    "u10": Description("10u", 165, "10 metre U wind component", "m s**-1"),
    "v10": Description("10v", 166, "10 metre V wind component", "m s**-1"),
    "t2m": Description("2t", 167, "2 metre temperature", "K"),
    "d2m": Description("2d", 168, "2 metre dewpoint temperature", "K"),
    "msl": Description("msl", 151, "Mean sea level pressure", "Pa", "air_pressure_at_mean_sea_level"),
    "sp": Description("sp", 134, "Surface pressure", "Pa", "surface_air_pressure"),
    "sst": Description("sst", 34, "Sea surface temperature", "K"),
    "tp": Description("tp", 228, "Total precipitation", "m", accumulated=True),
    "cp": Description(
        "cp",
        143,
        "Convective precipitation",
        "m",
        "lwe_thickness_of_convective_precipitation_amount",
        accumulated=True,
    ),
    "ssrd": Description(
        "ssrd",
        169,
        "Surface short-wave (solar) radiation downwards",
        "J m**-2",
        "surface_downwelling_shortwave_flux_in_air",
        accumulated=True,
    ),
    "t": _upper("t", 130, "Temperature", "K", "air_temperature"),
    "r": _upper("r", 157, "Relative humidity", "%", "relative_humidity"),
    "u": _upper("u", 131, "U component of wind", "m s**-1", "eastward_wind"),
    "v": _upper("v", 132, "V component of wind", "m s**-1", "northward_wind"),
    "z": _upper("z", 129, "Geopotential", "m**2 s**-2", "geopotential"),
}

TIME = {
    "long_name": "time",
    "standard_name": "time",
    "units": "seconds since 1970-01-01",
    "calendar": "proleptic_gregorian",
}
NUMBER = {"long_name": "ensemble member numerical id", "units": "1", "standard_name": "realization"}
LATITUDE = {
    "units": "degrees_north",
    "standard_name": "latitude",
    "long_name": "latitude",
    "stored_direction": "decreasing",
}
LONGITUDE = {"units": "degrees_east", "standard_name": "longitude", "long_name": "longitude"}
PRESSURE = {
    "long_name": "pressure",
    "units": "hPa",
    "positive": "down",
    "stored_direction": "decreasing",
    "standard_name": "air_pressure",
}


def file_attributes() -> dict[str, Any]:
    """Global attributes of a NetCDF-4 file; without a date, so that equal data are equal bytes."""
    return {
        "GRIB_centre": "ecmf",
        "GRIB_centreDescription": CENTRE,
        "GRIB_subCentre": np.int64(0),
        "Conventions": "CF-1.7",
        "institution": CENTRE,
        "history": HISTORY,
    }


def variable_attributes(name: str, grid: Grid) -> dict[str, Any]:
    """Attributes of a data variable in a NetCDF-4 file, in the order of the real ones."""
    about = DESCRIPTIONS[name]
    rows, columns = len(grid.latitude), len(grid.longitude)
    step = float(grid.step)
    attributes: dict[str, Any] = {
        "GRIB_paramId": np.int64(about.parameter),
        "GRIB_dataType": "fc" if about.accumulated else "an",
        "GRIB_numberOfPoints": np.int64(rows * columns),
        "GRIB_typeOfLevel": "isobaricInhPa" if about.on_levels else "surface",
        "GRIB_stepUnits": np.int64(1),
        "GRIB_stepType": "accum" if about.accumulated else "instant",
        "GRIB_gridType": "regular_ll",
        "GRIB_uvRelativeToGrid": np.int64(0),
        "GRIB_NV": np.int64(0),
        "GRIB_Nx": np.int64(columns),
        "GRIB_Ny": np.int64(rows),
        "GRIB_cfName": about.standard_name,
        "GRIB_cfVarName": name,
        "GRIB_gridDefinitionDescription": "Latitude/Longitude Grid",
        "GRIB_iDirectionIncrementInDegrees": step,
        "GRIB_iScansNegatively": np.int64(0),
        "GRIB_jDirectionIncrementInDegrees": step,
        "GRIB_jPointsAreConsecutive": np.int64(0),
        "GRIB_jScansPositively": np.int64(0),
        "GRIB_latitudeOfFirstGridPointInDegrees": float(grid.latitude[0]),
        "GRIB_latitudeOfLastGridPointInDegrees": float(grid.latitude[-1]),
        "GRIB_longitudeOfFirstGridPointInDegrees": float(grid.longitude[0]),
        "GRIB_longitudeOfLastGridPointInDegrees": float(grid.longitude[-1]),
        "GRIB_missingValue": 3.4028234663852886e38,
        "GRIB_name": about.long_name,
        "GRIB_shortName": about.grib_name,
        "GRIB_totalNumber": np.int64(0),
        "GRIB_units": about.units,
        "long_name": about.long_name,
        "units": about.units,
        "standard_name": about.standard_name,
    }
    if about.on_levels:
        return attributes | {"coordinates": "number valid_time isobaricInhPa latitude longitude expver"}
    return attributes | {
        "GRIB_surface": 0.0,
        "coordinates": "number valid_time latitude longitude expver",
    }
