"""What the training loop costs a vision-language model, against a bare loop of torch over batches in memory.

The second stage of the profile `scenes` (vision tower, adapter, memory and language model are trained; batches of 32,
one thread) on generated scenes. Either the project's loop trains, with its loader in a process beside it, clipping, a
history, and random numbers keyed by the step; or a bare loop does, over batches that lie in memory: forward, backward,
fused AdamW, and nothing else. The figure is the ratio of steps per second.
"""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench
from benchmarks.figure import Figure
from benchmarks.loops import on_one_thread
from benchmarks.pipelines import session
from configs.load import load_config, profile_path
from configs.microvlm import MicroVlmConfig
from storage.assets import AssetStore

PROFILE, STAGE = "scenes", "stage2"
VOCABULARY = 500
IMAGES, IMAGES_QUICK = 1000, 80


def run(bench: Bench) -> list[Figure]:
    """Train in turn by both loops."""
    return [on_one_thread(bench, _task(bench), name="microvlm_loop_efficiency", what="MicroVLM-V", steps=6)]


def _task(bench: Bench) -> dict[str, Any]:
    """Make shards and a tokenizer; return what the program is called with."""
    from flows.microvlm import microvlm
    from storage.image_texts import read_texts
    from tasks.text.tokens import train_tokenizer
    from tasks.vision_language.training import OBJECTIVE

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
    stage = config.vlm.stages[STAGE]
    design = config.vlm.design.model_copy(update={"tokenizer": str(tokenizer)})
    return {
        "objective": OBJECTIVE,
        "config": {
            "shards": str(shards), "index": str(index), "language": None, "start": None,
            "design": design.model_dump(mode="json"),
            "stage": stage.model_dump(mode="json"),
        },
        "training": stage.training.model_dump(mode="json"),
    }  # fmt: skip


def _only(store: AssetStore, kind: str) -> Any:
    (asset,) = store.assets(kind)
    return asset.folder
