"""How many small faults the tests notice.

`make mutants` puts faults, one at a time, into the modules that decide whether a result is true: masks and pooling,
losses, scores, intervals, baselines, splits, statistics, samplers, optimiser, schedule, evaluations and controls.
Cosmic Ray makes them: a number one off, a comparison that includes or excludes its border or is turned
round, plus for minus, and for or, a loop that never runs. What is no fault is left out: annotations, decorators, the
wording of errors. A fault is killed when one of the few test files that judge its module fails. The score is killed /
(killed + survived); survivors that are equivalent to the original count against it, and are listed with the reason
in `tests/mutants/survivors.toml`.

This takes hours, so it is not run here: what `make mutants` has found so far is read from its sessions.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.bench import Bench, rounded
from benchmarks.figure import Figure
from benchmarks.process import REPOSITORY

ON_REQUEST = True
Counts = dict[str, Any]


def run(bench: Bench) -> list[Figure]:
    """Read what the sessions have found; `RuntimeError` where nothing has been run. `quick` runs two faults itself."""
    counts = _counts(bench)
    whole = counts["all"]
    judged = whole["killed"] + whole["survived"]
    if not judged:
        raise RuntimeError("no fault has been run yet; run `make mutants` first")
    return [
        bench.figure(
            "mutation_score",
            what="Faults in what decides about results that its tests notice",
            value=rounded(whole["score"]),
            unit="of 1",
            aim=">= 0.9",
            notes=_notes(whole, judged, len(counts["modules"])),
            detail=counts,
        )
    ]


def _notes(whole: Counts, judged: int, modules: int) -> tuple[str, ...]:
    share = "All were run" if judged == whole["faults"] else f"{judged} were run, drawn evenly from each module"
    without = whole["killed"] / max(judged - whole["explained"], 1)
    return (
        f"{whole['faults']} faults in {modules} modules. {share}: {whole['killed']} were noticed, "
        f"{whole['survived']} survived; {whole['explained']} of these are explained as no fault.",
        f"Without the explained ones the score is {without:.3f}.",
    )


def _counts(bench: Bench) -> Counts:
    found = bench.work / "counts.json"
    what = ["intervals", "--most", "2"] if bench.quick else ["--report"]
    command = [sys.executable, "-m", "tests.mutants", "--work", str(bench.work), "--json", str(found), *what]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if not found.exists():
        raise RuntimeError(f"tests.mutants ended with code {done.returncode}: {done.stderr.strip()[-500:]}")
    counts: Counts = json.loads(found.read_text())
    return counts
