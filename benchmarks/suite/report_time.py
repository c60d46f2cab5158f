"""Drawing the report of a store with many channels.

The stage `era5_report` for 74 channels of 64 x 64 cells, four days: coverage of all channels, maps of a choice of them,
a table of statistics. Each round is a new process, whose imports of matplotlib and torch count.
"""

from __future__ import annotations

import shutil
import statistics
from typing import Any

from benchmarks.bench import Bench, rounded
from benchmarks.figure import Figure
from benchmarks.process import run_program
from benchmarks.small_files import SmallFiles, make_small_files


def run(bench: Bench) -> list[Figure]:
    """Measure a few reports."""
    make_small_files(SmallFiles(64, 64, 96, "contiguous"), bench.work / "raw")
    bench.say("drawing")
    rounds = [_draw(bench) for _ in range(1 if bench.quick else 3)]
    cpu, wall = (statistics.median(answer[time] for answer in rounds) for time in ("cpu", "wall"))
    return [
        bench.figure(
            "era5_report_seconds",
            what=f"Report of a store with {rounds[0]['channels']} channels, CPU time",
            value=rounded(cpu),
            unit="s",
            aim="<= 10",
            notes=(f"{wall:.1f} s of wall time; maps show {rounds[0]['channels_mapped']} of the channels.",),
            detail={"rounds": rounds},
        )
    ]


def _draw(bench: Bench) -> dict[str, Any]:
    root = bench.work / "assets"
    shutil.rmtree(root, ignore_errors=True)
    return run_program("draw_era5_report", raw=str(bench.work / "raw"), root=str(root))
