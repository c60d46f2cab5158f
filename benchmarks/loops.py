"""Trainings by the project's loop against a bare loop of torch, by turns in one process."""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench, interleave, median_ratio, rounded
from benchmarks.figure import Figure
from benchmarks.process import Program

LOOPS = ("ours", "bare")


def on_one_thread(bench: Bench, task: dict[str, Any], *, name: str, what: str, steps: int) -> Figure:
    """Measure steps per second by both loops on one CPU thread, with a loader process beside ours.

    Args:
        bench: where it runs.
        task: `objective`, `config` and `training` for `benchmarks.programs.loop_trainer`.
        name: of the figure.
        what: a training of what, for people.
        steps: of a round.
    """
    steps, rounds = (1, 1) if bench.quick else (steps, 7)
    machine = {"device": "cpu", "threads": 1, "loader_workers": 1, "scratch": str(bench.work / "scratch")}
    with Program("loop_trainer", {**task, **machine}) as program:
        facts = program.answer()
        bench.say(f"{rounds} rounds of {steps} steps each way")
        loops = {loop: lambda loop=loop: program.ask({"loop": loop, "steps": steps}) for loop in LOOPS}
        interleave(1, loops)
        results = interleave(rounds, loops)
    seconds = {loop: sorted(found)[rounds // 2] / steps for loop, found in results.items()}
    return bench.figure(
        name,
        what=f"Steps per second of a training of {what} by the project's loop, over those of a bare loop",
        value=rounded(median_ratio(results["bare"], results["ours"])),
        unit="x",
        aim=">= 0.9",
        peer="a bare loop of torch with the same losses, over batches in memory",
        peer_value=rounded(1 / seconds["bare"]),
        peer_unit="steps/s",
        notes=(
            f"A step takes {seconds['ours']:.2f} s by the project's loop and {seconds['bare']:.2f} s by the bare one; "
            f"{facts['parameters']:,} parameters, in one thread.",
        ),
        detail={"rounds": results, "steps": steps, **facts},
    )
