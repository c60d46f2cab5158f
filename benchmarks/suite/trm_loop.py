"""What the training loop costs a recursive decoder, against a bare loop of torch over batches in memory.

The TRM of the profile `scenes` with its carried states (batches of 64, one thread) on what a small encoder saw of
generated scenes. Either the project's loop trains, with its loader in a process beside it, clipping, a moving average,
a history, and random numbers keyed by the step; or a bare loop does, over batches that lie in memory: forward,
backward, fused AdamW, and nothing else. The figure is the ratio of steps per second.
"""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench, interleave, median_ratio, rounded
from benchmarks.figure import Figure
from benchmarks.pipelines import session
from benchmarks.process import Program
from configs.load import load_config, profile_path
from configs.trm_vlm import TrmVlmConfig

PROFILE, DECODER = "scenes", "trm"
IMAGES, IMAGES_QUICK = 600, 60


def run(bench: Bench) -> list[Figure]:
    """Train in turn by both loops."""
    steps, rounds = (1, 1) if bench.quick else (8, 7)
    with Program("loop_trainer", _task(bench)) as program:
        facts = program.answer()
        bench.say(f"{rounds} rounds of {steps} steps each way")
        loops = {loop: lambda loop=loop: program.ask({"loop": loop, "steps": steps}) for loop in ("ours", "bare")}
        interleave(1, loops)
        results = interleave(rounds, loops)
    seconds = {loop: sorted(found)[rounds // 2] / steps for loop, found in results.items()}
    return [
        bench.figure(
            "trm_loop_efficiency",
            what="Steps per second of a training of TRM by the project's loop, over those of a bare loop",
            value=rounded(median_ratio(results["bare"], results["ours"])),
            unit="x",
            aim=">= 0.9",
            peer="a bare loop of torch with the same losses, over batches in memory",
            peer_value=rounded(1 / seconds["bare"]),
            peer_unit="steps/s",
            notes=(
                f"A step takes {seconds['ours']:.2f} s by the project's loop and {seconds['bare']:.2f} s by the bare "
                f"one; {facts['parameters']:,} parameters, in one thread.",
            ),
            detail={"rounds": results, "steps": steps, **facts},
        )
    ]


def _task(bench: Bench) -> dict[str, Any]:
    """Let a small encoder see scenes; return what the program is called with."""
    from flows.trm_vlm import trm_vlm
    from tasks.answering.training import OBJECTIVE

    small = [
        f"source.images={IMAGES_QUICK if bench.quick else IMAGES}", "source.misbehaving_share=0",
        "images_per_shard=300",
        "splits={validation_share: 0.2, test_share: 0.2}", "alignment.training.epochs=1",
        "alignment.training.steps_per_epoch=2", "alignment.training.batch_size=8", "answering.seeds=[0]",
        "answering.training.epochs=1", "answering.training.steps_per_epoch=1",
        "evaluation={questions: 8, max_new_tokens: 1, depths: [1], resamples: 100}", "execution.wandb.mode=disabled",
    ]  # fmt: skip
    config = load_config(TrmVlmConfig, profile_path("trm_vlm", PROFILE), small)
    assert config.answering is not None
    design = config.answering.decoders[DECODER].design
    training = config.answering.decoders[DECODER].training
    assert training is not None
    plain = {"plain": config.answering.decoders["plain"]}
    answering = config.answering.model_copy(update={"decoders": plain})
    bench.say("showing scenes to an encoder")
    with session(bench.work / "assets") as store:
        trm_vlm(config.model_copy(update={"answering": answering}))
    (questions,), (answerer,) = store.assets("question_set"), store.assets("answerer")
    return {
        "objective": OBJECTIVE,
        "config": {
            "questions": str(questions.folder), "encoder": None, "tokenizer": str(answerer.folder / "tokenizer"),
            "design": design.model_dump(mode="json"), "halting_weight": 0.5, "validation_questions": 8,
        },
        "training": training.model_dump(mode="json"),
        "device": "cpu",
        "threads": 1,
        "loader_workers": 1,
        "scratch": str(bench.work / "scratch"),
    }  # fmt: skip
