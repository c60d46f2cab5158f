"""Decodes every value of raw files with netCDF4, one file after the other, and keeps nothing; argument: raw."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import netCDF4

from benchmarks.stopwatch import Stopwatch


def main(task: dict[str, str]) -> None:
    """Decode and answer with what it cost."""
    size = 0
    with Stopwatch() as watch:
        for path in sorted(Path(task["raw"]).glob("*.nc")):
            with netCDF4.Dataset(path) as file:
                file.set_auto_maskandscale(False)
                for variable in file.variables.values():
                    if variable.ndim >= 3:
                        size += variable[:].nbytes
    print(json.dumps({**watch.as_json(), "megabytes": size / 1e6}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
