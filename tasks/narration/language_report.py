"""The stage that judges a trained language model on captions."""

from __future__ import annotations

import json
import math

from storage.assets import Asset
from storage.files import write_atomic
from tasks.captions.placed import load_placed
from tasks.narration.documents import make_documents, write_documents
from tasks.narration.language_spec import OBJECTIVE, language_objective
from tasks.stage import Job, StageResult, stage


@stage("weather_language_report", objective=OBJECTIVE)
def language_report(job: Job, *, model: Asset, captions: Asset) -> StageResult:
    """Take the likelihood of captions under a language model, in nats per token.

    Of the captions that it was trained on, those of the dates that were held out; of others, all.
    """
    from tasks.narration.language_released import LanguageRelease
    from tasks.text.tokens import FOLDER
    from tasks.training.share import Share

    release = LanguageRelease.from_release(model.folder)
    text = release.recipe.text
    own = any(record.fingerprint == captions.fingerprint for record in model.manifest.inputs)
    made = make_documents(load_placed(captions.folder), text.held_out if text is not None and own else 1)
    documents = [document for document in made if document.part == "validation"]
    if not documents:
        raise ValueError("there are no captions to judge by; name other ones with --on")
    path = job.workspace.scratch / "documents.jsonl"
    write_documents(path, documents)
    objective = language_objective(model.folder / FOLDER, path, release.recipe).make()
    found = objective.evaluate(release.network, Share())
    metrics = {name: value for name, value in found.items() if math.isfinite(value)}
    write_atomic(job.folder / "scores.json", json.dumps(metrics, indent=1))
    return StageResult(counts={"documents": len(documents)}, metrics=metrics)
