"""The `microvlm` pipeline: image URLs with captions, e.g. CC12M, to shards, and to a model that sees and recalls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from configs.image_text_sample import SampleScenes
from configs.microvlm import MicroVlmConfig, VlmEvaluation, VlmRecipe
from flows.evaluation import Given
from flows.image_text import raw_lists, with_shards
from flows.pipelines import Pipeline
from flows.unseen import require_unseen_images
from tasks.stage import Label
from tasks.vision_language.language import caption_language_training
from tasks.vision_language.packed import vlm_packing
from tasks.vision_language.pruning import language_pruning
from tasks.vision_language.report import vlm_report
from tasks.vision_language.training import vlm_training


def microvlm(config: MicroVlmConfig) -> Any:
    """Wire the stages; every name below is an asset. Mode `metadata` ends with the lists."""
    raw = raw_lists(config)
    return with_shards(config, raw, partial(_models, config, raw))


def _models(config: MicroVlmConfig, raw: Any, shards: Any, index: Any) -> Any:
    """Train, pack and judge models on shards."""
    if config.vlm is None:
        return index
    language = _language(config, config.vlm, shards, index)
    models: dict[str, Any] = {}
    start = None
    for name, settings in config.vlm.stages.items():
        start = models[name] = vlm_training(
            shards=shards,
            index=index,
            language=language,
            start=start,
            design=config.vlm.design,
            settings=settings,
            execution=config.execution,
            label=Label(name),
        )
    for name, packed in config.vlm.packed.items():
        models[name] = vlm_packing(
            model=models[packed.stage], shards=shards, index=index, recipe=packed.recipe, label=Label(name)
        )
    return vlm_report(
        shards=shards,
        index=index,
        sample=raw if _knows_scenes(config) else None,
        evaluation=config.evaluation,
        **models,
    )


def _knows_scenes(config: MicroVlmConfig) -> bool:
    """Return whether row n of the list is about scene n of the generated data."""
    return isinstance(config.source, SampleScenes) and config.source.layout != "pixmo_qa"


def _language(config: MicroVlmConfig, recipe: VlmRecipe, shards: Any, index: Any) -> Any:
    """Train the language model, or prune it, where that is done here."""
    design = recipe.design
    if recipe.prune:
        assert design.tokenizer_source, "only a pretrained language model is pruned"
        return language_pruning(
            shards=shards,
            index=index,
            language=design.model.language,
            tokenizer=design.tokenizer_source,
            phrases=design.phrases,
            recipe=recipe.prune,
        )
    if recipe.text is None:
        return None
    return caption_language_training(
        shards=shards,
        index=index,
        language=design.model.language,
        phrases=design.phrases,
        text=recipe.text,
        execution=config.execution,
    )


def judge_vlm(given: Given) -> Callable[[], Any]:
    """Judge a model on the test split of another index."""
    name, settings = given.in_report(vlm_report.kind, "evaluation") or ("model", {})
    index = given.asset("image_text_index")
    require_unseen_images(given.store, given.model, index)
    return partial(
        vlm_report,
        shards=given.asset("image_text_shards"),
        index=index,
        sample=None,
        evaluation=VlmEvaluation.model_validate(settings),
        **{name: given.model},
    )


PIPELINE = Pipeline(
    "microvlm",
    "Image URLs with captions to verified WebDataset shards, and to a small model that sees and recalls",
    MicroVlmConfig,
    microvlm,
    judges={vlm_training.kind: judge_vlm, vlm_packing.kind: judge_vlm},
)
