"""The stage that judges a trained language model on texts that it was not trained on."""

from __future__ import annotations

import json
import math
from dataclasses import replace

from storage.assets import Asset
from storage.files import write_atomic
from tasks.captions.placed import load_placed
from tasks.narration.documents import make_documents, write_documents
from tasks.narration.language import OBJECTIVE, language_objective
from tasks.stage import Job, StageResult, stage


@stage("weather_language_report", objective=OBJECTIVE)
def language_report(job: Job, *, model: Asset, captions: Asset) -> StageResult:
    """Take the likelihood of all captions under a language model, in nats per token."""
    from tasks.narration.released import LanguageRelease
    from tasks.text.tokens import FOLDER
    from tasks.training.share import Share

    release = LanguageRelease.from_release(model.folder)
    documents = [replace(d, part="validation") for d in make_documents(load_placed(captions.folder), 0)]
    if not documents:
        raise ValueError("there are no captions to judge by; name other ones with --on")
    path = job.workspace.scratch / "documents.jsonl"
    write_documents(path, documents)
    objective = language_objective(model.folder / FOLDER, path, release.recipe).make()
    found = objective.evaluate(release.network, Share())
    metrics = {name: value for name, value in found.items() if math.isfinite(value)}
    write_atomic(job.folder / "scores.json", json.dumps(metrics, indent=1))
    return StageResult(counts={"documents": len(documents)}, metrics=metrics)
