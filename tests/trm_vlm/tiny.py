"""The smallest pipeline from scenes with questions to answers that has every part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.trm_vlm import TrmVlmConfig
from flows.runner import run
from flows.trm_vlm import PIPELINE
from tasks.progress import Silent

LLAMA: dict[str, Any] = {
    "kind": "llama", "pretrained": None,
    "sizes": {"hidden": 16, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate": 24, "positions": 64},
}  # fmt: skip
TRM: dict[str, Any] = {
    "kind": "trm", "hidden": 16, "heads": 2, "expansion": 1.0, "positions": 64, "inner_steps": 2, "rounds": 2,
    "supervision_steps": 3,
}  # fmt: skip
LENGTHS = {"longest_question": 16, "longest_answer": 6}
ENCODER: dict[str, Any] = {
    "tower": {"kind": "vit", "pretrained": None, "sizes": {
        "side": 32, "patch": 8, "hidden": 16, "layers": 1, "heads": 2, "intermediate": 16, "stem": [8]}},
    "resampler": {"kind": "perceiver", "tokens": 4, "width": 16, "layers": 1, "heads": 2},
    "width": 24,
}  # fmt: skip
ALIGNMENT: dict[str, Any] = {
    "model": {
        "encoder": ENCODER,
        "text": {"kind": "small", "vocabulary": 320, "hidden": 16, "layers": 1, "heads": 2, "longest": 48},
    },
    "train_tower": True,
    "widths": [16, 8],
    "validation_samples": 8,
    "texts_per_image": 3,
    "training": {"epochs": 1, "steps_per_epoch": 2, "batch_size": 4,
                 "learning_rates": {"resampler": 2e-3, "text": 2e-3, "tower": 2e-3}},
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "source": {"kind": "sample", "layout": "pixmo_qa", "images": 60, "misbehaving_share": 0.0, "side": 96},
    "image": {"side": 40},
    "images_per_shard": 30,
    "splits": {"validation_share": 0.25, "test_share": 0.25},
    "alignment": ALIGNMENT,
    "answering": {
        "vocabulary": 320,
        "validation_questions": 8,
        "training": {"epochs": 1, "steps_per_epoch": 2, "batch_size": 4, "learning_rates": {"all": 3e-3}},
        "decoders": {
            "plain": {"design": {**LENGTHS, "decoder": LLAMA}},
            "trm": {"design": {**LENGTHS, "decoder": {**TRM, "halting": True}}},
            "blind": {"design": {**LENGTHS, "decoder": LLAMA, "vision": False}},
        },
        "packed": {"trm-ternary": {"decoder": "trm", "recipe": {
            "ternary": ["language.trm.net.layers.*"], "int8": ["adapter.1"]}}},
    },
    "evaluation": {"questions": 12, "max_new_tokens": 3, "depths": [1, 2, 5], "resamples": 100, "pictures": 2},
    "execution": {"threads": 1, "wandb": {"mode": "disabled"}},
}  # fmt: skip


def build(root: Path) -> None:
    """Run the pipeline."""
    run(PIPELINE, TrmVlmConfig.model_validate(CONFIG), root, Silent(), workers="inline")
