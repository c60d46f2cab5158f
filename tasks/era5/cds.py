"""ERA5 from the Copernicus Climate Data Store: a period becomes requests, a request becomes one file.

The official `cdsapi` client queues, polls, retries and resumes. This module decides what to ask for, checks what
arrived, and turns a refusal into one sentence. Progress goes to the loggers of this module and of `multiurl`.

A fetched file is what the CDS sent: NetCDF, or a ZIP of NetCDF files where a request mixes instantaneous and
accumulated variables (even when asked for `unarchived`). Its content decides which, never its name.

Recent months hold preliminary ERA5T, which final ERA5 replaces about three months later, and the current month
grows daily: see `periods.is_preliminary`. A request that is repeated after a kill is answered from the CDS's cache.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import cdsapi
import requests
import xarray as xr
from cdsapi.api import get_url_key_verify
from pydantic import BaseModel, ConfigDict

from configs.weather import CdsSource
from storage.files import atomic_path
from tasks.era5.periods import month_spans

LOGGER = logging.getLogger(__name__)

API_URL = "https://cds.climate.copernicus.eu/api"
RETRY_SECONDS = 60.0
"""Longest wait between polls of a job, and the wait before a request that failed in transit is repeated."""
MAX_TRIES = 120
"""Tries of one HTTP request, hence about two hours of patience with a server that is down."""

NETCDF_MAGIC = (b"CDF\x01", b"CDF\x02", b"CDF\x05", b"\x89HDF\r\n\x1a\n")
ZIP_MAGIC = b"PK\x03\x04"

_ADVICE = (
    ("licen", "accept the licence once at https://cds.climate.copernicus.eu/datasets/{dataset}?tab=download"),
    ("policies", "accept the terms of use once in your profile at https://cds.climate.copernicus.eu/profile"),
    ("cost limits", "ask for less per request: lower source.max_fields (now {max_fields})"),
    ("too large", "ask for less per request: lower source.max_fields (now {max_fields})"),
    ("401 client error", "put your current token into ~/.cdsapirc, from https://cds.climate.copernicus.eu/profile"),
    ("no data", "check source.single_level, source.pressure_level and the period"),
    ("available yet", "let the period end earlier: source.end"),
    ("queued requests", "the account has too many requests in the queue: run again when they are done"),
    ("404 client error", "check source.url and CDSAPI_URL"),
    ("connection", "check the network and the address (source.url, CDSAPI_URL), then run again"),
)


class CdsPartition(BaseModel):
    """One request to the CDS, which gives one file."""

    model_config = ConfigDict(frozen=True)

    id: str
    """Product and month, e.g. `single-levels_2024-01`; with `_part2` where a month needs several requests."""
    dataset: str
    """Name of the CDS data set."""
    start: date
    """First day."""
    end: date
    """Last day, included."""
    request: dict[str, Any]
    """The request as the CDS takes it."""


def cds_partitions(config: CdsSource) -> list[CdsPartition]:
    """Return the requests of a source by month, then product, then part.

    Requests do not depend on the order in which variables, levels or hours were configured. No request has more
    than `config.max_fields` fields (variables x levels x hours).
    """
    return [
        partition
        for first, last in month_spans(config.start, config.last_day)
        for product, variables, levels in (
            ("single-levels", config.single_level, ()),
            ("pressure-levels", config.pressure_level, config.levels),
        )
        for partition in _month_of_product(config, product, variables, levels, first, last)
    ]


def _month_of_product(
    config: CdsSource, product: str, variables: Sequence[str], levels: Sequence[int], first: date, last: date
) -> Iterator[CdsPartition]:
    common = {"product_type": ["reanalysis"], **_time_keys(first, last, config.hours), **_grid_keys(config)}
    steps = len(common["day"]) * len(common["time"])
    parts = _parts(sorted(set(variables)), sorted(set(levels)), config.max_fields // steps)
    for number, (some_variables, some_levels) in enumerate(parts, start=1):
        request = {**common, "variable": some_variables}
        if some_levels:
            request["pressure_level"] = [str(level) for level in some_levels]
        suffix = f"_part{number}" if len(parts) > 1 else ""
        yield CdsPartition(
            id=f"{product}_{first:%Y-%m}{suffix}",
            dataset=f"reanalysis-era5-{product}",
            start=first,
            end=last,
            request=request,
        )


def _time_keys(first: date, last: date, hours: Sequence[int]) -> dict[str, list[str]]:
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return {
        "year": [f"{first:%Y}"],
        "month": [f"{first:%m}"],
        "day": [f"{day:%d}" for day in days],
        "time": [f"{hour:02d}:00" for hour in sorted(set(hours))],
    }


def _grid_keys(config: CdsSource) -> dict[str, Any]:
    keys: dict[str, Any] = {"data_format": "netcdf", "download_format": "unarchived"}
    if config.area:
        keys["area"] = list(config.area)
    if config.grid:
        # As text: the CDS counts the two numbers of a list as two requests, and refuses the doubled cost.
        keys["grid"] = f"{config.grid}/{config.grid}"
    return keys


def _parts(variables: list[str], levels: list[int], limit: int) -> list[tuple[list[str], list[int]]]:
    """Split variables x levels into boxes of at most `limit`: by variables, and by levels where one is too much."""
    per_variable = max(1, len(levels))
    if per_variable <= limit:
        size = limit // per_variable
        return [(variables[i : i + size], levels) for i in range(0, len(variables), size)]
    return [([v], levels[i : i + limit]) for v in variables for i in range(0, len(levels), limit)]


def fetch_cds(partition: CdsPartition, config: CdsSource, target: Path) -> None:
    """Download one partition to `target`, which appears only when it is whole and readable.

    The NetCDF library is not thread-safe: fetch from one thread per process. Whatever the CDS refuses, or sends
    in place of data, is a `ValueError` with its message and what to do about it.
    """
    client = _client(config)
    with atomic_path(target) as temporary:
        try:
            result = client.retrieve(partition.dataset, partition.request)
            _require_http(result.location)
            result.download(str(temporary))
        # The client raises whatever its layers raise: HTTPError, RuntimeError, AssertionError, OSError.
        except Exception as error:
            raise ValueError(_refusal(partition, config, error)) from error
        _check_download(partition, temporary)


def _client(config: CdsSource) -> cdsapi.Client:
    try:
        url, key, verify = get_url_key_verify(config.url, None, None)
    except Exception as error:
        raise ValueError(
            "no credentials for the Climate Data Store: copy the two lines from "
            "https://cds.climate.copernicus.eu/how-to-api into ~/.cdsapirc, or set CDSAPI_URL and CDSAPI_KEY"
        ) from error
    if ":" in key or url.rstrip("/").endswith("/v2"):
        raise ValueError(
            "the credentials in ~/.cdsapirc or CDSAPI_KEY are of the Climate Data Store that closed in 2024: use "
            f"url {API_URL} and the token from https://cds.climate.copernicus.eu/profile as key, without a user id"
        )
    _require_http(url)
    return cdsapi.Client(
        url=url,
        key=key,
        verify=verify,
        progress=False,
        sleep_max=RETRY_SECONDS,
        retry_max=MAX_TRIES,
        debug_callback=LOGGER.debug,
        info_callback=LOGGER.info,
        warning_callback=LOGGER.warning,
        error_callback=LOGGER.error,
    )


def _require_http(url: str) -> None:
    # The client would also read file:// and ftp:// addresses.
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"{url!r} is not an http address of the Climate Data Store: correct source.url")


def _refusal(partition: CdsPartition, config: CdsSource, error: Exception) -> str:
    message = _server_message(error)
    advice = next((hint for sign, hint in _ADVICE if sign in message.lower()), "run again later")
    advice = advice.format(dataset=partition.dataset, max_fields=config.max_fields)
    return f"the Climate Data Store gave no file for {partition.id}: {message} - {advice}"


def _server_message(error: Exception) -> str:
    """Return a client error on one line, with the server's own words first and its address left out."""
    first, *others = [line.strip(" .") for line in str(error).splitlines() if line.strip()] or [repr(error)]
    if isinstance(error, requests.HTTPError):
        status = first.partition(" for url")[0]
        return f"{'; '.join(others)[:600]} ({status})" if others else status
    return "; ".join([first, *others])[:600]


def _check_download(partition: CdsPartition, path: Path) -> None:
    """Refuse what is not a readable NetCDF file or ZIP of them; the client has compared the size already."""
    with path.open("rb") as file:
        head = file.read(80)
    try:
        if head.startswith(ZIP_MAGIC):
            with zipfile.ZipFile(path) as archive:
                problem = archive.testzip() or (None if archive.namelist() else "it is empty")
        elif head.startswith(NETCDF_MAGIC):
            with xr.open_dataset(path, engine="netcdf4", decode_cf=False) as data:
                problem = None if data.data_vars else "it holds no variables"
        else:
            problem = f"it begins with {head!r}"
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        problem = str(error)
    if problem:
        raise ValueError(
            f"the Climate Data Store sent {path.stat().st_size} bytes for {partition.id} that are not a readable "
            f"NetCDF or ZIP file ({problem}): run again, and report it to https://support.ecmwf.int if it stays so"
        )
