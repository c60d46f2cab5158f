"""The stage that packs a vision-language model into few bits, and proves that it says the same."""

from __future__ import annotations

import json

from configs.quantise import QuantiseRecipe
from storage.assets import Asset
from tasks.stage import Job, Label, StageResult, stage

TOLERANCE = 1e-3
"""Largest difference of logits between the packed model and the one that computes quantised from exact weights."""
CHECKED = 8
"""Images of the validation split on which they are compared."""


@stage("microvlm_packed")
def vlm_packing(
    job: Job, *, model: Asset, shards: Asset, index: Asset, recipe: QuantiseRecipe | None, label: Label
) -> StageResult:
    """Pack a model; compare its logits, read back from the file, with those of the model that it was made from."""
    import torch

    from tasks.quantise.packing import pack_into, quantise_once
    from tasks.text.tokens import FOLDER
    from tasks.training.release import CONFIG, WEIGHTS, write_config
    from tasks.vision_language.released import VlmRelease, self_contained_config
    from tasks.vision_language.samples import Asking, VlmSamples, collate

    release = VlmRelease.from_release(model.folder)
    how = recipe or release.quantised
    assert how is not None, "the recipe of a model that trained exact is given"
    network = release.network
    values = sum(p.numel() for p in network.parameters())
    quantise_once(network, how)
    asking = Asking(release.tokens, release.design.phrases, episode=2, longest=64)
    samples = VlmSamples(shards.folder, index.folder, "validation", network.vision.side, asking)
    batch = collate([samples.sample(k % len(samples), k) for k in range(CHECKED)])
    with torch.no_grad():
        expected = network(batch).logits.told
    config = self_contained_config(release, how)
    pack_into(job.folder / WEIGHTS, network, how)
    weights = json.loads((model.folder / CONFIG).read_text())["weights"]
    write_config(job.folder, VlmRelease, config, weights, [], packed=how)
    release.tokens.tokenizer.save_pretrained(str(job.folder / FOLDER))
    with torch.no_grad():
        found = VlmRelease.from_release(job.folder).network(batch).logits.told
    # At padding, which nobody reads, attention has nothing to look at, and its forms differ.
    apart = float((found - expected)[batch.told.attended].abs().max())
    if not apart <= TOLERANCE:
        raise ChildProcessError(f"the packed model's logits are off by {apart:.2g}, more than {TOLERANCE:g}")
    size = (job.folder / WEIGHTS).stat().st_size
    return StageResult(
        counts={"bytes": size, "parameters": values},
        metrics={"bits_per_parameter": 8 * size / values, "logits_apart": apart},
    )
