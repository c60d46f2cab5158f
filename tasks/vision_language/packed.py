"""The stage that packs a vision-language model into few bits, and proves that it says the same."""

from __future__ import annotations

from typing import Any

from configs.quantise import QuantiseRecipe
from storage.assets import Asset
from tasks.stage import Job, Label, StageResult, stage


@stage("microvlm_packed")
def vlm_packing(
    job: Job, *, model: Asset, shards: Asset, index: Asset, recipe: QuantiseRecipe | None, label: Label
) -> StageResult:
    """Pack a model; compare its logits, read back from the file, with those of the model that it was made from."""
    from tasks.training.release import write_packed_release
    from tasks.vision_language.released import VlmRelease, self_contained_config
    from tasks.vision_language.samples import first_of_validation

    release = VlmRelease.from_release(model.folder)
    how = recipe or release.quantised
    assert how is not None, "the recipe of a model that trained exact is given"
    batch = first_of_validation(release, shards.folder, index.folder)

    def logits(network: Any) -> Any:
        return network(batch).logits.told[batch.told.attended]

    config = self_contained_config(release, how)
    return StageResult(*write_packed_release(job.folder, model.folder, release, how, config, logits))
