"""Draws the report of a store that it makes of raw files first; arguments: raw, root."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.stopwatch import Stopwatch
from configs.weather import Recipe, SplitConfig, StoreLayout, WindowConfig
from storage.assets import AssetStore
from storage.raw import find_files
from tasks.era5.ingest import era5_windows
from tasks.era5.inputs import may_be_netcdf
from tasks.era5.prepare import era5_training_set
from tasks.era5.report import era5_report
from tasks.era5.scan import era5_catalog
from tasks.progress import Silent
from tasks.session import Session
from tasks.stage import raw_input


def main(task: dict[str, str]) -> None:
    """Run the stages and answer with what the report cost, imports included, and what it shows."""
    with Session(AssetStore(Path(task["root"])), Silent()).active():
        raw = raw_input("era5_files", find_files([task["raw"]], may_be_netcdf))
        catalog = era5_catalog(raw=raw, on_bad_file="error")
        store = era5_windows(raw=raw, catalog=catalog, recipe=Recipe(), layout=StoreLayout())
        training_set = era5_training_set(store=store, windows=WindowConfig(), splits=SplitConfig())
        with Stopwatch() as watch:
            report = era5_report(store=store, training_set=training_set, channels=())
    print(json.dumps({**watch.as_json(), **report.manifest.counts}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
