"""How many files that nobody would write the readers of foreign bytes take without a fault.

`make fuzz` changes good files where their format is decided (headers, chunks, attributes, schemas, members, cells) and
gives them to the readers: NetCDF, GeoTIFF, PNG, JPEG, CSV, TSV, JSON, parquet, tars, ZIP archives, manifests, YAML,
checkpoints and released models. A case fails where a reader does anything but give a result or refuse in one sentence
of its own: another exception, a crash, 5 seconds or a gigabyte, a file anywhere but in its folder.

This takes hours, so it is not run here: what `make fuzz` has found so far, with the code as it is, is read.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from typing import Any

from benchmarks.bench import Bench
from benchmarks.figure import Figure
from benchmarks.process import REPOSITORY

ON_REQUEST = True
QUICK = ("--reader", "png", "manifest", "--cases", "50")


def run(bench: Bench) -> list[Figure]:
    """Read what was found; `RuntimeError` where nothing has been run. `quick` runs a few cases itself."""
    counts = _counts(bench)
    if not counts["cases"]:
        raise RuntimeError("no case has been run; run `make fuzz` first")
    readers = counts["readers"]
    fewest = min(readers, key=lambda row: row["cases"])
    notes = (
        f"{len(readers)} readers, at least {fewest['cases']} cases of each ({fewest['reader']}); "
        f"{sum(row['results'] for row in readers)} gave a result, {sum(row['sentences'] for row in readers)} a "
        f"sentence; the slowest took {max(row['slowest'] for row in readers):g} s.",
    )
    figure = partial(bench.figure, unit="", notes=notes, detail=counts)
    return [
        figure("fuzz_cases", what="Odd files given to readers", value=counts["cases"], aim=">= 1000000"),
        figure("fuzz_failures", what="Odd files that a reader failed at", value=counts["failures"], aim="<= 0"),
    ]


def _counts(bench: Bench) -> dict[str, Any]:
    found = bench.work / "counts.json"
    what = QUICK if bench.quick else ("--report",)
    command = [sys.executable, "-m", "tests.fuzz", "--work", str(bench.work), "--json", str(found), *what]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if not found.exists():
        raise RuntimeError(f"tests.fuzz ended with code {done.returncode}: {done.stderr.strip()[-500:]}")
    counts: dict[str, Any] = json.loads(found.read_text())
    return counts
