"""Builds the patch-token cache of a fire archive, as the wildfire pipeline does.

Arguments: archive, root, patch, workers.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.pipelines import session
from benchmarks.stopwatch import Stopwatch
from configs.fire_data import Decoding, Tokens
from tasks.fire.archive import archive_files, archive_names
from tasks.fire.cache import fire_cache
from tasks.fire.records import fire_records
from tasks.stage import raw_input


def main(task: dict[str, Any]) -> None:
    """Run the stages and answer with the cache's folder and what each part cost."""
    for library in ("rasterio", "safetensors.numpy", "zarr"):  # like the peer's; workers make their own within the time
        import_module(library)
    with session(Path(task["root"]), task["workers"]):
        with Stopwatch() as hashing:
            raw = raw_input("fire_archive", archive_files(task["archive"]))
            names = archive_names(raw)
        with Stopwatch() as recording:
            records = fire_records(
                raw=raw, names=names, decoding=Decoding(), tokens=Tokens(patch=task["patch"]), on_broken="error"
            )
        with Stopwatch() as packing:
            cache = fire_cache(records=records)
    parts = {"hashing": hashing, "fire_records": recording, "fire_cache": packing}
    answer = {"cache": str(cache.folder), **{name: watch.as_json() for name, watch in parts.items()}}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
