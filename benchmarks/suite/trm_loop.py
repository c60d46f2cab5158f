"""What the training loop costs a recursive decoder, against a bare loop of torch over batches in memory.

The TRM of the profile `scenes` with its carried states (questions about 16 images a batch, one thread) on what a small
encoder saw of generated scenes. Either the project's loop trains, with its loader in a process beside it, clipping, a
moving average, a history, and random numbers keyed by the step; or a bare loop does, over batches that lie in memory:
forward, backward, fused AdamW (of all weights, in both), and nothing else. The figure is the ratio of steps per second.
"""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench
from benchmarks.figure import Figure
from benchmarks.loops import on_one_thread
from benchmarks.pipelines import session
from configs.load import load_config, profile_path
from configs.trm_vlm import TrmVlmConfig

PROFILE, DECODER = "scenes", "trm"
IMAGES, IMAGES_QUICK = 600, 60


def run(bench: Bench) -> list[Figure]:
    """Train in turn by both loops."""
    return [on_one_thread(bench, answering_task(bench), name="trm_loop_efficiency", what="TRM", steps=8)]


def answering_task(bench: Bench) -> dict[str, Any]:
    """Let a small encoder see scenes; return with what `loop_trainer` trains a TRM to answer questions about them."""
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
            "design": design.model_dump(mode="json"), "questions_at_once": config.answering.questions_at_once,
            "halting_weight": 0.5, "validation_questions": 8,
        },
        "training": training.model_dump(mode="json") | {"matrices": "adamw"},
    }  # fmt: skip
