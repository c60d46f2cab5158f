"""The stage that packs an answerer into few bits, and proves that it says the same."""

from __future__ import annotations

import json

from configs.quantise import QuantiseRecipe
from storage.assets import Asset
from tasks.stage import Job, Label, StageResult, stage

TOLERANCE = 1e-3
"""Largest difference of logits between the packed model and the one that computes quantised from exact weights."""
CHECKED = 16
"""Questions of the validation split on which they are compared."""


@stage("answerer_packed")
def answerer_packing(job: Job, *, model: Asset, questions: Asset, recipe: QuantiseRecipe, label: Label) -> StageResult:
    """Pack a model; compare its logits, read back from the file, with those of the model that it was made from."""
    import torch

    from tasks.answering.released import AnswererRelease, self_contained
    from tasks.answering.samples import Questions, collate
    from tasks.quantise.packing import pack_into, quantise_once
    from tasks.text.tokens import FOLDER
    from tasks.training.release import CONFIG, WEIGHTS, write_config

    release = AnswererRelease.from_release(model.folder)
    network, content = release.network, json.loads((model.folder / CONFIG).read_text())
    values = sum(p.numel() for p in network.parameters())
    quantise_once(network, recipe)
    source = Questions(questions.folder, "validation", release.asking, CHECKED)
    batch = collate([source.sample(k, 0) for k in range(len(source))])
    with torch.no_grad():
        expected = network(batch)
    pack_into(job.folder / WEIGHTS, network, recipe)
    config = self_contained(release, content["model"])
    write_config(job.folder, AnswererRelease, config, content["weights"], [], packed=recipe)
    release.tokens.tokenizer.save_pretrained(str(job.folder / FOLDER))
    with torch.no_grad():
        found = AnswererRelease.from_release(job.folder).network(batch)
    apart = float((found - expected)[batch.attended].abs().max())
    if not apart <= TOLERANCE:
        raise ChildProcessError(f"the packed model's logits are off by {apart:.2g}, more than {TOLERANCE:g}")
    size = (job.folder / WEIGHTS).stat().st_size
    return StageResult(
        counts={"bytes": size, "parameters": values},
        metrics={"bits_per_parameter": 8 * size / values, "logits_apart": apart},
    )
