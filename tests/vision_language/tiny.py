"""The smallest pipeline from scenes to a packed model that has every part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.microvlm import MicroVlmConfig
from flows.microvlm import PIPELINE
from flows.runner import run
from tasks.progress import Silent

RATES = {"adapter": 3e-3, "alignment": 3e-3, "recall": 3e-3}
MODEL: dict[str, Any] = {
    "vision": {"pretrained": None, "sizes": {
        "side": 32, "patch": 8, "hidden": 16, "layers": 1, "heads": 2, "intermediate": 16}},
    "adapter": {"heads": 2},
    "alignment": {"width": 16, "heads": 2, "longest": 16},
    "recall": {"memory": {"slots": 12}, "vectors": 2, "steps": 8},
    "language": {"kind": "llama", "pretrained": None, "sizes": {
        "hidden": 16, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate": 24, "positions": 160}},
}  # fmt: skip
FEW_BITS: dict[str, Any] = {
    "ternary": ["language.hf.model.layers.*"],
    "int8": ["vision.*", "recall.tell"],
    "embedding": "int8",
    "embeddings": ["language.hf.model.embed_tokens"],
    "slots": ["recall.memory.slots"],
    "warm_up": 0.5,
}


def stage(**changes: Any) -> dict[str, Any]:
    """Return a stage of two steps."""
    rates = RATES | dict.fromkeys(changes.pop("rates", ()), 0.002)
    batch_size = changes.pop("batch_size", 4)
    training = {"epochs": 1, "steps_per_epoch": 2, "batch_size": batch_size, "learning_rates": rates}
    return {"episode": 2, "longest": 24, "validation_samples": 8, "training": training, **changes}


CONFIG: dict[str, Any] = {
    "source": {"kind": "sample", "images": 60, "misbehaving_share": 0.0, "side": 96},
    "image": {"side": 40},
    "images_per_shard": 30,
    "splits": {"validation_share": 0.25, "test_share": 0.25},
    "vlm": {
        "design": {"model": MODEL},
        "text": {
            "vocabulary": 320,
            "longest": 48,
            "training": {"epochs": 1, "steps_per_epoch": 2, "batch_size": 4, "learning_rates": {"all": 3e-3}},
        },
        "stages": {
            "stage1": stage(),
            "stage2": stage(vision=True, language_layers=1, rates=("vision", "language")),
            "ternary": stage(language_layers=2, quantise=FEW_BITS, rates=("language",)),
        },
        "packed": {"few_bits": {"stage": "ternary"}, "untrained": {"stage": "stage2", "recipe": FEW_BITS}},
    },
    "evaluation": {
        "samples": 8, "texts": 2, "max_new_tokens": 6, "episode": 2, "longest": 24, "resamples": 100, "pictures": 1,
    },
    "execution": {"threads": 1, "wandb": {"mode": "disabled"}},
}  # fmt: skip


def build(root: Path) -> None:
    """Run the pipeline."""
    run(PIPELINE, MicroVlmConfig.model_validate(CONFIG), root, Silent(), workers="inline")
