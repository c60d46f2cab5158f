"""Rerunning a pipeline when nothing has changed.

The weather pipeline's profile `windows` on a shorter sample is run once, then again, each time in a new process. The
clock runs around every stage call, from the call to its return: computing the key, taking the lock, verifying every
file, and with the Prefect engine also the task run with its states, logs and artifacts in the API that the run starts.
Prefect's own start (its imports, its database, the flow run) is left out of the figure; the notes say how long the
whole run took.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.bench import Bench, interleave, rounded
from benchmarks.figure import Figure
from benchmarks.process import run_program

OVERRIDES = ("source.days=6",)


def run(bench: Bench) -> list[Figure]:
    """Measure both engines."""
    task = {"root": str(bench.work / "assets"), "overrides": OVERRIDES}
    bench.say("first run")
    run_program("cached_run", engine="prefect", **task)
    rounds = 1 if bench.quick else 7
    bench.say(f"{rounds} cached reruns with each engine")
    results = interleave(
        rounds,
        {
            "prefect": lambda: run_program("cached_run", engine="prefect", **task),
            "inline": lambda: run_program("cached_run", engine="inline", **task),
        },
    )
    return [
        _figure(bench, "cached_stage_ms", "as a Prefect flow", results["prefect"]),
        _figure(bench, "cached_stage_inline_ms", "with the inline engine", results["inline"]),
    ]


def _figure(bench: Bench, name: str, how: str, results: list[dict[str, Any]]) -> Figure:
    for result in results:
        worked = [stage for stage, status in result["status"].items() if status != "HIT"]
        if worked:
            raise RuntimeError(f"a rerun was not fully cached: {', '.join(worked)} worked again")
    stages = list(results[0]["seconds"])
    each = [1000 * sum(result["seconds"].values()) / len(stages) for result in results]
    by_stage = {stage: statistics.median(1000 * result["seconds"][stage] for result in results) for stage in stages}
    whole = statistics.median(result["whole"] for result in results)
    return bench.figure(
        name,
        what=f"A cached stage {how}",
        value=rounded(statistics.median(each)),
        unit="ms",
        aim="<= 50",
        notes=(
            f"By stage, in order: {', '.join(f'{stage} {value:.1f} ms' for stage, value in by_stage.items())}.",
            f"The whole run took {whole:.2f} s with its start, {len(stages)} stages.",
        ),
        detail={"profile": "windows", "overrides": OVERRIDES, "rounds": results},
    )
