"""ERA5-like weather that is generated, not downloaded: physically coherent fields, CDS files, captions that are true.

Where to look: `weather_systems` (lows and highs), `weather_earth` (ground and sun), `weather_fields` (physics),
`weather_files` (NetCDF), `weather_statistics` and `weather_phrases` (captions).
"""

from __future__ import annotations

from pathlib import Path

from configs.weather import SampleSource
from tasks.samples.weather_captions import write_captions
from tasks.samples.weather_files import write_fields
from tasks.samples.weather_regions import REGIONS
from tasks.samples.weather_units import SampleUnit, sample_units

__all__ = ["REGIONS", "SampleUnit", "sample_units", "write_sample_unit"]


def write_sample_unit(config: SampleSource, unit: SampleUnit, folder: Path, *, preliminary: bool = False) -> None:
    """Write the files of one unit below `folder`; same config, same bytes, in any process and order.

    With `preliminary`, the newest third of the last month's time steps is marked as ERA5T (expver 0005).
    """
    folder.mkdir(parents=True, exist_ok=True)
    if unit.kind == "captions":
        write_captions(config, unit, folder)
    else:
        write_fields(config, unit, folder, preliminary=preliminary)
