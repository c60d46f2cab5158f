"""Every objective of the project at its smallest, in every form that its model has, each with a training to go with it.

New objectives and new forms of models enter here, and every test of this folder then holds for them too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.training import TrainingConfig
from storage.assets import AssetStore
from storage.image_texts import read_texts
from tasks.training.objective import Objective, make_objective
from tasks.vision_language.texts import write_texts
from tests.once import only
from tests.trm_vlm.tiny import ALIGNMENT, LENGTHS, TRM
from tests.trm_vlm.tiny import LLAMA as ANSWERING_LLAMA
from tests.vision_language.tiny import CONFIG as VLM
from tests.vision_language.tiny import FEW_BITS
from tests.vision_language.tiny import stage as vlm_stage
from tests.weather_lm.tiny import CONFIG, folders


@dataclass(frozen=True)
class Data:
    """What objectives are made from."""

    cache: Path
    split: Path
    weather: AssetStore
    documents: Path
    """Texts for language models."""
    vlm: AssetStore
    """Images with texts."""
    answers: AssetStore
    """Images with questions."""


@dataclass(frozen=True)
class Case:
    """An objective and how it is trained."""

    path: str
    config: Callable[[Data], dict[str, Any]]
    training: dict[str, Any]

    def objective(self, data: Data) -> Objective:
        """Return the objective, made as a training's child makes it."""
        return make_objective(self.path, self.config(data))

    def settings(self, **changes: Any) -> TrainingConfig:
        """Return the training's configuration: clipping, decay and warm-up on, all of them strong enough to show."""
        values = {"epochs": 4, "steps_per_epoch": 1, "batch_size": 4, "weight_decay": 0.1, "clip_norm": 0.5}
        return TrainingConfig.model_validate(values | self.training | changes)


EMBERFORMER = {"kind": "emberformer", "d_model": 16, "nhead": 2, "num_layers": 2, "max_history": 4, "feedforward": 1}
UNET = {"kind": "unet", "widths": [6, 10], "depth": 2, "features": 5}
FIRE_RATES = {"temporal": 3e-3, "spatial": 1e-3}


def _fire(model: dict[str, Any], loss: dict[str, Any] | None = None, **training: Any) -> Case:
    recipe = {
        "model": model,
        "inputs": {"history": 4, "window_tokens": 5},
        "loss": loss or {},
        "training": {"epochs": 1, "batch_size": 1, "learning_rates": FIRE_RATES},
    }
    return Case(
        "tasks.fire.objective:FireObjective",
        lambda data: {"cache": str(data.cache), "split": str(data.split), "recipe": recipe},
        {"learning_rates": FIRE_RATES, **training},
    )


def _fire_cases() -> dict[str, Case]:
    focal = {"kind": "focal_tversky", "pos_weight": "auto"}
    decoders: dict[str, dict[str, Any]] = {
        "segformer": {"kind": "segformer", "hidden_sizes": [8, 12], "decoder_hidden_size": 12, "features": 4},
        "resnet": {"kind": "unet_resnet", "depth": 18, "hidden_sizes": [8, 8, 12, 12], "widths": [4, 6, 8, 8],
                   "features": 4},
        "sam": {"kind": "sam", "hidden_size": 32, "num_hidden_layers": 1, "features": 4},
    }  # fmt: skip
    cases = {
        "front": _fire(EMBERFORMER | {"decoder": UNET, "head": "front"}, accumulation=2, ema_decay=0.9),
        "front, edge, attention across": _fire(
            EMBERFORMER | {"decoder": UNET, "head": "front", "edge_weight": 0.2, "spatial_layers": 1},
            focal,
            freeze={"spatial": 1},
        ),
        "residual": _fire(EMBERFORMER | {"decoder": UNET}, {"kind": "bce_dice"}, ema_decay=0.9),
        "unet_s": _fire({"kind": "unet_s", "widths": [6, 10]}, accumulation=2),
        "unet_s, front": _fire({"kind": "unet_s", "widths": [6, 10], "head": "front"}),
        "unet_s_tokens": _fire({"kind": "unet_s_tokens", "widths": [6, 10]}, accumulation=2),
        "conv_head_2d": _fire({"kind": "conv_head_2d", "width": 6}, focal),
        "tiny_3d": _fire({"kind": "tiny_3d", "width": 6}, {"kind": "bce"}),
    }
    of_decoders = {name: _fire(EMBERFORMER | {"decoder": decoder}) for name, decoder in decoders.items()}
    return {f"fire: {name}": case for name, case in (cases | of_decoders).items()}


def _mae(recipe: dict[str, Any], **training: Any) -> Case:
    def config(data: Data) -> dict[str, Any]:
        parts = folders(data.weather)
        values = {**CONFIG["mae"], **recipe, "model": {**CONFIG["mae"]["model"], **recipe.get("model", {})}}
        return {"store": str(parts.store), "training_set": str(parts.training_set), "recipe": values}

    return Case("tasks.mae.objective:MaeObjective", config, {"learning_rates": {"all": 2e-3}, **training})


LLAMA = CONFIG["languages"]["small"]["model"]
LANGUAGES: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "qwen2": {"kind": "qwen2", "pretrained": None, "sizes": {**LLAMA["sizes"], "kv_heads": 1}},
    "hrm_text": {"kind": "hrm_text", "pretrained": None, "sizes": {
        "hidden": 16, "layers": 1, "heads": 2, "intermediate": 16, "h_cycles": 2, "l_cycles": 2, "positions": 192}},
    "hrm_act": {"kind": "hrm_act_v1", "hidden": 16, "h_layers": 1, "l_layers": 1, "heads": 2, "expansion": 1.0,
                "positions": 192, "max_steps": 3},
}  # fmt: skip


def _language(model: dict[str, Any], **training: Any) -> Case:
    def config(data: Data) -> dict[str, Any]:
        language = only(data.weather, "weather_language").folder
        recipe = {**CONFIG["languages"]["small"], "model": model}
        return {
            "recipe": recipe,
            "tokenizer": str(language / "tokenizer"),
            "documents": str(data.documents),
        }

    path = "tasks.narration.language_objective:LanguageObjective"
    return Case(path, config, {"learning_rates": {"all": 2e-3}, **training})


def _narrator(recipe: dict[str, Any], **training: Any) -> Case:
    tiny = CONFIG["narrators"]["adapter"]
    rates = {"adapter": 3e-3} | ({"language": 1e-3} if "adaptation" in recipe else {})

    def config(data: Data) -> dict[str, Any]:
        parts = folders(data.weather)
        return {
            "store": str(parts.store),
            "training_set": str(parts.training_set),
            "captions": str(parts.captions),
            "mae": str(only(data.weather, "weather_mae").folder),
            "language": str(only(data.weather, "weather_language").folder),
            "join": CONFIG["captions"]["join"],
            "language_recipe": CONFIG["languages"]["small"],
            "recipe": {**tiny, **recipe, "training": {**tiny["training"], "learning_rates": rates}},
        }

    return Case("tasks.narration.objective:NarratorObjective", config, {"learning_rates": rates, **training})


def _vlm(stage: dict[str, Any], design: dict[str, Any] | None = None, start: bool = False, **training: Any) -> Case:
    def config(data: Data) -> dict[str, Any]:
        return {
            "shards": str(only(data.vlm, "image_text_shards").folder),
            "index": str(only(data.vlm, "image_text_index").folder),
            "language": str(only(data.vlm, "microvlm_language").folder),
            "start": str(min(data.vlm.assets("microvlm_model"), key=lambda a: a.size).folder) if start else None,
            "design": {"model": {**VLM["vlm"]["design"]["model"], **(design or {})}},
            "stage": stage,
        }

    rates = stage["training"]["learning_rates"]
    return Case("tasks.vision_language.objective:VlmObjective", config, {"learning_rates": rates, **training})


def _caption_language(data: Data) -> dict[str, Any]:
    language, shards, index = (
        only(data.vlm, kind).folder for kind in ("microvlm_language", "image_text_shards", "image_text_index")
    )
    texts = data.documents.parent / "texts.json"
    write_texts(texts, {part: read_texts(shards, index, part) for part in ("train", "validation")})
    return {
        "language": VLM["vlm"]["design"]["model"]["language"],
        "phrases": {},
        "tokenizer": str(language / "tokenizer"),
        "texts": str(texts),
        "longest": 32,
    }


def _alignment(recipe: dict[str, Any], **training: Any) -> Case:
    def config(data: Data) -> dict[str, Any]:
        return {
            "shards": str(only(data.answers, "image_text_shards").folder),
            "index": str(only(data.answers, "image_text_index").folder),
            "tokenizer": str(only(data.answers, "image_encoder").folder / "tokenizer"),
            "recipe": {**ALIGNMENT, **recipe},
        }

    rates = ALIGNMENT["training"]["learning_rates"]
    return Case("tasks.alignment.objective:AlignmentObjective", config, {"learning_rates": rates, **training})


def _answers(decoder: dict[str, Any], vision: bool = True, **training: Any) -> Case:
    def config(data: Data) -> dict[str, Any]:
        return {
            "questions": str(only(data.answers, "question_set").folder),
            "encoder": None,
            "tokenizer": str(min(data.answers.assets("answerer"), key=lambda a: a.key).folder / "tokenizer"),
            "design": {**LENGTHS, "decoder": decoder, "vision": vision},
            "questions_at_once": 2,
            "halting_weight": 0.5,
            "validation_questions": 8,
        }

    return Case("tasks.answering.objective:AnswerObjective", config, {"learning_rates": {"all": 2e-3}, **training})


LORA = {"r": 2, "target_modules": ["q_proj", "down_proj"]}
CASES: dict[str, Case] = {
    **_fire_cases(),
    "mae": _mae({"model": {"drop_path": 0.2}}, accumulation=2, ema_decay=0.9),
    "mae, by latitude, muon": _mae({"latitude_weighting": True}, matrices="muon"),
    **{f"language: {name}": _language(model, accumulation=2) for name, model in LANGUAGES.items()},
    "narrator: attention": _narrator({}, accumulation=2, ema_decay=0.9),
    "narrator: resampler, muon": _narrator(
        {"prefixer": {"tokens": 4, "heads": 2, "pooling": "resampler", "residual": True}}, matrices="muon"
    ),
    "narrator: lora, muon": _narrator({"adaptation": {"lora": LORA}}, freeze={"language": 2}, matrices="muon"),
    "narrator: 4 bits": _narrator({"adaptation": {"four_bit": True, "lora": LORA}}),
    "captions": Case(
        "tasks.vision_language.language_objective:CaptionLanguageObjective",
        _caption_language,
        {"learning_rates": {"all": 2e-3}, "accumulation": 2},
    ),
    "vlm: stage 1": _vlm(vlm_stage()),
    "vlm: stage 2, by words, prefix": _vlm(
        vlm_stage(vision=True, language_layers=1, rates=("vision", "language")),
        {
            "alignment": {"width": 16, "heads": 2, "longest": 16, "by_words": True},
            "recall": {"memory": {"slots": 12}, "injection": "prefix", "steps": 8},
        },
        accumulation=2,
        batch_size=8,
    ),
    "vlm: 4 bits": _vlm(vlm_stage(four_bit=True)),
    "vlm: ternary": _vlm(
        vlm_stage(language_layers=2, quantise=FEW_BITS, rates=("language",), weights={"relations": 0.5}), start=True
    ),
    "alignment": _alignment({}, accumulation=2, batch_size=8),
    "alignment, pooled, sampled, by tokens, muon": _alignment(
        {
            "nesting": "sampled",
            "model": {
                **ALIGNMENT["model"],
                "encoder": {
                    **ALIGNMENT["model"]["encoder"],
                    "resampler": {"kind": "pooled", "tokens": 4, "width": 16, "heads": 2},
                },
                "compared": "tokens",
            },
        },
        matrices="muon",
    ),
    "answers: plain": _answers(ANSWERING_LLAMA, accumulation=2),
    "answers: blind": _answers(ANSWERING_LLAMA, vision=False),
    "answers: trm": _answers(TRM, accumulation=2, ema_decay=0.9),
    "answers: trm, halting, concatenated, muon": _answers(
        TRM | {"halting": True, "mixing": "concatenated"}, matrices="muon"
    ),
    "narrator: last block": _narrator({"adaptation": {"unfreeze_last_block": True}}),
}
