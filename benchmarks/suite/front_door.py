"""How long `make demo` takes after its set-up, for the first time and again when everything is cached.

Both of its commands, `millrace run all --profile demo` and `millrace report all`, in a new root and then once more in
the same root, by the clock on the wall: it is a person who waits. The page of every pipeline must be there.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.bench import Bench, rounded
from benchmarks.figure import Figure
from benchmarks.process import REPOSITORY
from flows.pipelines import ALL, find_pipelines

QUICK = (
    "weather.source.days=8", "weather.source.resolution=2", "weather.mae=null", "weather.captions=null",
    "weather.languages={}", "weather.narrators={}", "weather.splits.cycles=1",
    "weather.windows={time: 4, height: 8, width: 8, max_nan_share: 1.0}",
    "wildfire.source={kind: sample, fires: 16, rows: 200, columns: 220, largest_crop: 64, max_frames: 5}",
    "wildfire.models={}", "microvlm.source.images=24", "trm_vlm.source.images=24",
)  # fmt: skip


def run(bench: Bench) -> list[Figure]:
    """Measure both."""
    root = bench.work / "assets"
    first, again = (_demo(bench, root, words) for words in ("first time", "again"))
    what = "`make demo` after its set-up, two cores"
    return [
        _figure(bench, "demo_minutes", f"{what}, first time", first["wall"] / 60, "min", "<= 7", first),
        _figure(bench, "cached_demo_seconds", f"{what}, all cached", again["wall"], "s", "<= 25", again),
    ]


def _demo(bench: Bench, root: Path, words: str) -> dict[str, float]:
    bench.say(words)
    overrides = [word for override in QUICK if bench.quick for word in ("--set", override)]
    began, before = time.perf_counter(), _cpu()
    for command in (["run", "all", "--profile", "demo", *overrides], ["report", "all"]):
        millrace = [sys.executable, "-m", "flows", *command, "--root", str(root)]
        done = subprocess.run(millrace, cwd=REPOSITORY, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"millrace {command[0]} all ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    if missing := [pipeline.name for pipeline in find_pipelines(ALL) if not pipeline.page(root).exists()]:
        raise RuntimeError(f"there is no page of {', '.join(missing)}")
    return {"wall": time.perf_counter() - began, "cpu": _cpu() - before}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _figure(bench: Bench, name: str, what: str, value: float, unit: str, aim: str, times: dict[str, float]) -> Figure:
    note = f"{times['cpu']:.0f} s of CPU time in {times['wall']:.0f} s."
    return bench.figure(name, what=what, value=rounded(value), unit=unit, aim=aim, notes=(note,), detail=times)
