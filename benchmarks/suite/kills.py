"""How many kills at the worst moments the pipelines survive.

`make kills` ends runs of small pipelines with SIGKILL at one file operation after another: in every stage of every
pipeline, with Prefect and without, in the stage's own process, in its unit workers and in its training process. All
other stages are cached. A kill is survived when the run after it ends in the same assets, to the byte, as one that
nobody disturbed, and nothing else is left in the root.

This takes hours, so it is not run here: what `make kills` has found so far, with the code as it is, is read.
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
QUICK = ("fires", "--stage", "fire_split", "--most", "2", "--engine", "inline", "--process", "main")


def run(bench: Bench) -> list[Figure]:
    """Read what was found; `RuntimeError` where nothing has been run. `quick` kills twice itself."""
    counts = _counts(bench)
    killed = counts["survived"] + counts["lost"]
    if not killed:
        raise RuntimeError("nothing has been killed yet; run `make kills` first")
    places = [row for row in counts["places"] if row["survived"] or row["lost"]]
    stages = {(row["pipeline"], row["stage"]) for row in places}
    operations = sum(row["operations"] for row in places)
    notes = (
        f"{killed} kills at {operations} file operations of {len(stages)} stages, spread evenly over each; "
        f"{_share(places, 'engine', 'prefect')} with Prefect, {_share(places, 'process', 'worker')} in unit workers, "
        f"{_share(places, 'process', 'training')} in training processes.",
    )
    what = "Kills at a file operation after which the next run ends"
    figure = partial(bench.figure, unit="", notes=notes, detail=counts)
    return [
        figure("kills_survived", what=f"{what} as if nothing was", value=counts["survived"], aim=">= 1000"),
        figure("kills_lost", what=f"{what} otherwise, or not at all", value=counts["lost"], aim="<= 0"),
    ]


def _share(places: list[dict[str, Any]], field: str, value: str) -> int:
    return sum(row["survived"] + len(row["lost"]) for row in places if row[field] == value)


def _counts(bench: Bench) -> dict[str, Any]:
    found = bench.work / "counts.json"
    what = QUICK if bench.quick else ("--report",)
    command = [sys.executable, "-m", "tests.kills", "--work", str(bench.work), "--json", str(found), *what]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if not found.exists():
        raise RuntimeError(f"tests.kills ended with code {done.returncode}: {done.stderr.strip()[-500:]}")
    counts: dict[str, Any] = json.loads(found.read_text())
    return counts
