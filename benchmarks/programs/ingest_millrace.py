"""Ingests raw files into a window store, as the weather pipeline does; arguments: raw, root, workers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.stopwatch import Stopwatch
from configs.weather import Recipe, StoreLayout
from storage.assets import AssetStore
from storage.raw import find_files
from tasks.era5.ingest import era5_windows
from tasks.era5.inputs import may_be_netcdf
from tasks.era5.scan import era5_catalog
from tasks.progress import Silent
from tasks.session import Session
from tasks.stage import raw_input
from tasks.units import Workers


def main(task: dict[str, str]) -> None:
    """Run the stages and answer with the store's folder and what each part cost."""
    session = Session(AssetStore(Path(task["root"])), Silent(), workers=Workers.parse(task["workers"]))
    with session.active():
        with Stopwatch() as hashing:
            raw = raw_input("era5_files", find_files([task["raw"]], may_be_netcdf))
        with Stopwatch() as stages:
            catalog = era5_catalog(raw=raw, on_bad_file="error")
            windows = era5_windows(raw=raw, catalog=catalog, recipe=Recipe(), layout=StoreLayout())
    answer = {"store": str(windows.folder), "hashing": hashing.as_json(), "stages": stages.as_json()}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
