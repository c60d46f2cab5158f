"""What the training loop costs a vision-language model, against a plain loop of torch over batches in memory.

The second stage of the profile `scenes` (vision tower, adapter, memory and language model are trained; batches of 32,
one thread) on generated scenes. Either the project's loop trains, with its loader in a process beside it, flat
gradients, a history, and random numbers keyed by the step; or a loop of a few lines does, with `clip_grad_norm_` and
`torch.optim.AdamW` on an equal copy of the model, over batches that lie in memory. The figure is the ratio of steps per
second.
"""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench, interleave, median_ratio, rounded
from benchmarks.figure import Figure
from benchmarks.pipelines import session
from benchmarks.process import Program
from configs.load import load_config, profile_path
from configs.microvlm import MicroVlmConfig
from storage.assets import AssetStore

PROFILE, STAGE = "scenes", "stage2"
VOCABULARY = 500
IMAGES, IMAGES_QUICK = 1000, 80


def run(bench: Bench) -> list[Figure]:
    """Train in turn by both loops."""
    steps, rounds = (1, 1) if bench.quick else (6, 7)
    task = _task(bench)
    with Program("vlm_trainer", task) as program:
        sizes = program.answer()
        bench.say(f"{rounds} rounds of {steps} steps each way")
        loops = {by: lambda by=by: program.ask({"by": by, "steps": steps}) for by in ("loop", "plain")}
        interleave(1, loops)
        results = interleave(rounds, loops)
    ratio = {
        clock: median_ratio([r[clock] for r in results["plain"]], [r[clock] for r in results["loop"]])
        for clock in ("wall", "cpu")
    }
    seconds = {by: sorted(r["wall"] for r in found)[rounds // 2] / steps for by, found in results.items()}
    return [
        bench.figure(
            "microvlm_loop_efficiency",
            what="Steps per second of a training of MicroVLM-V by the project's loop, over those of a plain loop",
            value=rounded(ratio["wall"]),
            unit="x",
            aim=">= 0.9",
            peer="a plain loop of torch with the same losses, over batches in memory",
            peer_value=rounded(1 / seconds["plain"]),
            peer_unit="steps/s",
            notes=(
                f"A step takes {seconds['loop']:.2f} s by the project's loop, {seconds['plain']:.2f} s by the plain "
                f"one; {sizes['parameters']:,} parameters, {sizes['trained']:,} of them trained, in one thread.",
                f"In CPU time of the training process the ratio is {ratio['cpu']:.3f}.",
            ),
            detail={"rounds": results, "steps": steps, **sizes},
        )
    ]


def _task(bench: Bench) -> dict[str, Any]:
    """Make shards and a tokenizer; return what the program is called with."""
    from flows.microvlm import microvlm
    from tasks.text.tokens import train_tokenizer
    from tasks.vision_language.texts import read_texts

    images = IMAGES_QUICK if bench.quick else IMAGES
    small = [f"source.images={images}", "source.misbehaving_share=0", "splits.validation_share=0.2"]
    config = load_config(MicroVlmConfig, profile_path("microvlm", PROFILE), small)
    assert config.vlm is not None
    bench.say(f"making shards of {images} scenes")
    with session(bench.work / "assets") as store:
        microvlm(config.model_copy(update={"vlm": None}))
    shards, index = (_only(store, kind) for kind in ("image_text_shards", "image_text_index"))
    tokenizer = bench.work / "tokenizer"
    train_tokenizer([text for _, text in read_texts(shards, index, "train")], VOCABULARY, tokenizer)
    design = config.vlm.design.model_copy(update={"tokenizer": str(tokenizer)})
    return {
        "objective": {
            "shards": str(shards), "index": str(index), "language": None, "start": None,
            "design": design.model_dump(mode="json"),
            "stage": config.vlm.stages[STAGE].model_dump(mode="json"),
        },
        "threads": 1,
        "loader_workers": 1,
        "scratch": str(bench.work / "scratch"),
    }  # fmt: skip


def _only(store: AssetStore, kind: str) -> Any:
    (asset,) = store.assets(kind)
    return asset.folder
