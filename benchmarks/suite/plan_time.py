"""Planning: what would run, and why.

`millrace plan weather` in a new process, timed from the call of the command to its end, imports apart: for an empty
root with the profile `windows`, for a root where everything is cached, and for the profile `full`. The slowest counts.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.bench import Bench, interleave, rounded
from benchmarks.figure import Figure
from benchmarks.process import run_program
from benchmarks.suite.cached_rerun import OVERRIDES


def run(bench: Bench) -> list[Figure]:
    """Measure the three plans."""
    cached, empty = str(bench.work / "assets"), str(bench.work / "empty")
    windows = ["--profile", "windows", *(word for override in OVERRIDES for word in ("--set", override))]
    bench.say("first run")
    run_program("cached_run", engine="inline", root=cached, overrides=OVERRIDES)
    plans = {
        "empty root": lambda: _plan(empty, windows, "RUN"),
        "all cached": lambda: _plan(cached, windows, "HIT"),
        "full profile": lambda: _plan(empty, ["--profile", "full"], "RUN"),
    }
    results = interleave(1 if bench.quick else 5, plans)
    seconds = {name: statistics.median(r["seconds"] for r in rounds) for name, rounds in results.items()}
    whole = statistics.median(r["with_imports"] for rounds in results.values() for r in rounds)
    return [
        bench.figure(
            "plan_seconds",
            what="`millrace plan weather`, imports apart",
            value=rounded(max(seconds.values())),
            unit="s",
            aim="< 2",
            notes=(
                f"{', '.join(f'{name} {value:.3f} s' for name, value in seconds.items())}.",
                f"With the start of Python and all imports: {whole:.1f} s.",
            ),
            detail={"rounds": results},
        )
    ]


def _plan(root: str, options: list[str], expected: str) -> dict[str, Any]:
    begin = time.perf_counter()
    answer = run_program("plan", root=root, options=options)
    whole = time.perf_counter() - begin
    if expected not in answer["printed"]:
        raise RuntimeError(f"the plan shows no {expected}: {answer['printed']}")
    return {"seconds": answer["seconds"], "with_imports": whole}
