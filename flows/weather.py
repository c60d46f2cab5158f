"""The `weather` pipeline: raw ERA5 to a verified window store with statistics and splits."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from configs.weather import ArcoSource, CdsSource, FilesSource, SampleSource, WeatherConfig
from storage.raw import find_files
from tasks.era5.download import as_of, era5_arco, era5_cds
from tasks.era5.ingest import era5_windows
from tasks.era5.inputs import may_be_netcdf
from tasks.era5.prepare import era5_training_set
from tasks.era5.report import era5_report
from tasks.era5.scan import era5_catalog
from tasks.samples.generate import era5_sample
from tasks.stage import raw_input


def weather(config: WeatherConfig) -> Any:
    """Wire the stages; every name below is an asset."""
    raw = raw_files(config, today=datetime.now(UTC).date())
    on_bad_file = config.source.on_bad_file if isinstance(config.source, FilesSource) else "error"
    catalog = era5_catalog(raw=raw, on_bad_file=on_bad_file)
    windows = era5_windows(raw=raw, catalog=catalog, recipe=config.recipe, layout=config.store)
    training_set = era5_training_set(store=windows, windows=config.windows, splits=config.splits)
    era5_report(store=windows, training_set=training_set)
    return training_set


def raw_files(config: WeatherConfig, today: date) -> Any:
    """Return the raw NetCDF files that the configured source has or makes."""
    match config.source:
        case SampleSource() as source:
            return era5_sample(source=source)
        case FilesSource() as source:
            return raw_input("era5_files", find_files(source.paths, may_be_netcdf))
        case CdsSource() as source:
            return era5_cds(source=source.until(today), as_of=as_of(source.until(today), today))
        case ArcoSource() as source:
            return era5_arco(source=source, as_of=as_of(source, today))
