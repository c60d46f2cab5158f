"""The stage that packs a narrator into few bits, and proves that it says the same."""

from __future__ import annotations

from typing import Any

from configs.quantise import QuantiseRecipe
from configs.weather_lm import JoinConfig
from storage.assets import Asset
from tasks.stage import Job, Label, StageResult, stage

CHECKED = 8
"""Pairs of the validation period on which packed and exact model are compared."""


@stage("weather_narrator_packed")
def narrator_packing(
    job: Job,
    *,
    model: Asset,
    store: Asset,
    training_set: Asset,
    captions: Asset,
    mae: Asset,
    language: Asset | None,
    join: JoinConfig,
    recipe: QuantiseRecipe,
    label: Label,
) -> StageResult:
    """Pack a narrator with its vision model and its language model; compare its logits, read back from the file, with
    those of the model that it was made from.
    """
    from models.language.adaptation import merge_adapters
    from tasks.narration.dataset import PairFolders, collate
    from tasks.narration.released import NarratorRelease, self_contained
    from tasks.training.release import write_packed_release

    release = NarratorRelease.from_release(model.folder)
    merge_adapters(release.network.language)
    folders = PairFolders(store.folder, training_set.folder, captions.folder)
    pairs = folders.samples("validation", join, release.tokens, release.language, release.recipe.max_caption_tokens)
    if not len(pairs):
        raise ValueError(
            "no window of the validation period has a caption to compare by; raise splits.validation_share"
        )
    batch = collate([pairs.sample(k % len(pairs), k) for k in range(CHECKED)])

    def logits(network: Any) -> Any:
        return network.caption_logits(batch, network.soft_prompts(batch))[batch.learned[:, 1:]]

    config = self_contained(release, mae.folder)
    return StageResult(*write_packed_release(job.folder, model.folder, release, recipe, config, logits))
