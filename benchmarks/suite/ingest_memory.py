"""Memory of ingest.

The peak resident memory of the whole process tree, sampled every 20 ms while files are hashed, catalogued and ingested
with two worker processes; pages that processes share count in each of them. Growth compares 4 days with 32 days of the
same data, 9 channels on a half-degree global grid, one file per variable and day. The absolute peak is that of three
full days: 17 channels on the quarter-degree global grid of ERA5, 721 x 1440, again with two workers.
"""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path

from benchmarks.bench import Bench, interleave, rounded
from benchmarks.figure import Figure
from benchmarks.process import run_weighed
from benchmarks.raw_files import RawData, make_raw_files, raw_path

WORKERS = 2
DAYS = 4
GROWTH = 8


def run(bench: Bench) -> list[Figure]:
    """Measure growth over the period, then the peak on the full grid."""
    return [_growth(bench), _full_grid(bench)]


def _growth(bench: Bench) -> Figure:
    size = (46, 90, 4.0) if bench.quick else (361, 720, 0.5)
    days = DAYS * (2 if bench.quick else GROWTH)
    data = RawData(*size, steps=24, periods=days, levels=(850, 500), distinct=DAYS)
    bench.say(f"making {data.megabytes:.0f} MB of fields")
    long, short = bench.work / "long", bench.work / "short"
    make_raw_files(data, long)
    _link_periods(long, short, DAYS)
    bench.say(f"ingesting {DAYS} days and {days} days in turn")
    peaks = interleave(
        1 if bench.quick else 2, {"short": lambda: _peak(bench.work, short), "long": lambda: _peak(bench.work, long)}
    )
    low, high = (statistics.median(peaks[name]) for name in ("short", "long"))
    shutil.rmtree(long)
    return bench.figure(
        "ingest_memory_growth",
        what=f"Peak memory of ingest, {days // DAYS} times the period against once",
        value=rounded(high / low, 4),
        unit="x",
        aim="<= 1.15",
        peer=f"itself, {DAYS} days",
        peer_value=rounded(low / 1e6),
        peer_unit="MB",
        notes=(
            f"{low / 1e6:.0f} MB for {DAYS} days, {high / 1e6:.0f} MB for {days} days, "
            f"which are {data.megabytes:.0f} MB of float32.",
        ),
        detail={"data": data.describe(), "peak_bytes": peaks, "workers": WORKERS},
    )


def _full_grid(bench: Bench) -> Figure:
    size = (91, 180, 2.0) if bench.quick else (721, 1440, 0.25)
    data = RawData(*size, steps=24, periods=3, distinct=1)
    bench.say(f"making {data.megabytes:.0f} MB of fields")
    raw = bench.work / "full"
    make_raw_files(data, raw)
    bench.say("ingesting full days")
    peak = _peak(bench.work, raw)
    shutil.rmtree(raw)
    return bench.figure(
        "ingest_peak_gb_full_grid",
        what=f"Peak memory of ingest, {data.channels} channels of {data.rows} x {data.columns}, hourly",
        value=rounded(peak / 1e9),
        unit="GB",
        aim="<= 2.5",
        notes=(f"A day is {data.megabytes / data.periods:.0f} MB of float32; {WORKERS} days are written at a time.",),
        detail={"data": data.describe(), "peak_bytes": peak, "workers": WORKERS},
    )


def _link_periods(source: Path, target: Path, periods: int) -> None:
    target.mkdir(exist_ok=True)
    names = {path.name.rsplit("-", 1)[0] for path in source.glob("*.nc")}
    for name in sorted(names):
        for period in range(periods):
            raw_path(target, name, period).hardlink_to(raw_path(source, name, period))


def _peak(work: Path, raw: Path) -> int:
    root = work / "assets"
    _, peak = run_weighed("ingest_millrace", raw=str(raw), root=str(root), workers=str(WORKERS))
    shutil.rmtree(root)
    return peak
