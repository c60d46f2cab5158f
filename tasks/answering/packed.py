"""The stage that packs an answerer into few bits, and proves that it says the same."""

from __future__ import annotations

import json
from typing import Any

from configs.quantise import QuantiseRecipe
from storage.assets import Asset
from tasks.stage import Job, Label, StageResult, stage

CHECKED = 16
"""Questions of the validation split on which packed and exact model are compared."""


@stage("answerer_packed")
def answerer_packing(job: Job, *, model: Asset, questions: Asset, recipe: QuantiseRecipe, label: Label) -> StageResult:
    """Pack a model; compare its logits, read back from the file, with those of the model that it was made from."""
    from tasks.answering.released import AnswererRelease, self_contained
    from tasks.answering.samples import Questions, collate
    from tasks.training.release import CONFIG, write_packed_release

    release = AnswererRelease.from_release(model.folder)
    source = Questions(questions.folder, "validation", release.asking, CHECKED)
    batch = collate([source.sample(k, 0) for k in range(len(source))])

    def logits(network: Any) -> Any:
        return network(batch)[batch.attended]

    config = self_contained(release, json.loads((model.folder / CONFIG).read_text())["model"])
    return StageResult(*write_packed_release(job.folder, model.folder, release, recipe, config, logits))
