"""What it saves to read an image once for all of its questions, instead of once for each of them.

The TRM of the profile `scenes` with its carried states, in one thread, on what a small encoder saw of generated scenes,
64 tokens an image. A row of a batch has either one question about an image, or up to seven that follow one copy of its
tokens; both ways give the same losses and gradients (a test holds that). A bare loop of torch trains both by turns,
over batches in memory that have about as many tokens. The figure is the ratio of questions per second.
"""

from __future__ import annotations

from benchmarks.bench import Bench, interleave, median_ratio, rounded
from benchmarks.figure import Figure
from benchmarks.process import Program
from benchmarks.suite.trm_loop import answering_task

STEPS = 8
ONE_BY_ONE = 32
"""Questions of a step, one by one."""


def run(bench: Bench) -> list[Figure]:
    """Train in turn both ways."""
    task = answering_task(bench)
    at_once = int(task["config"]["questions_at_once"])
    steps, rounds = (1, 1) if bench.quick else (STEPS, 7)
    machine = {"device": "cpu", "threads": 1, "loader_workers": 0}
    alone = {**task, "config": {**task["config"], "questions_at_once": 1},
             "training": {**task["training"], "batch_size": ONE_BY_ONE}}  # fmt: skip
    with (
        Program("loop_trainer", {**alone, **machine, "scratch": str(bench.work / "alone")}) as one,
        Program("loop_trainer", {**task, **machine, "scratch": str(bench.work / "together")}) as many,
    ):
        counts = {"one": one.answer()["counts"]["nll"], "many": many.answer()["counts"]["nll"]}
        ways = {
            "one": lambda: one.ask({"loop": "bare", "steps": steps}),
            "many": lambda: many.ask({"loop": "bare", "steps": steps}),
        }
        interleave(1, ways)
        results = interleave(rounds, ways)
    per_question = {way: [s / steps / counts[way] for s in found] for way, found in results.items()}
    seconds = {way: sorted(found)[rounds // 2] for way, found in per_question.items()}
    return [
        bench.figure(
            "questions_at_once",
            what=f"Questions per second that TRM learns from, up to {at_once} about an image at once",
            value=rounded(median_ratio(per_question["one"], per_question["many"])),
            unit="x",
            peer="the same training, one question at a time",
            peer_value=rounded(1 / seconds["one"]),
            peer_unit="questions/s",
            notes=(
                f"{1e3 * seconds['many']:.1f} ms a question at once, {1e3 * seconds['one']:.1f} ms one by one; "
                f"{counts['many']:.0f} and {counts['one']:.0f} questions a step, in one thread.",
            ),
            detail={"rounds": results, "questions": counts, "steps": steps},
        )
    ]
