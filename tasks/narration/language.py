"""The stage that trains a tokenizer and a language model on texts about the weather."""

from __future__ import annotations

from dataclasses import replace

from configs.training import Execution
from configs.weather_lm import LanguageRecipe
from storage.assets import Asset
from tasks.captions.placed import PlacedCaption, load_placed
from tasks.narration.documents import make_documents, write_documents
from tasks.narration.language_spec import OBJECTIVE, language_objective
from tasks.stage import Job, Label, StageResult, stage
from tasks.text.tokens import FOLDER, train_tokenizer
from tasks.training.launch import train


@stage("weather_language", objective=OBJECTIVE)
def language_training(
    job: Job,
    *,
    captions: Asset,
    training_set: Asset | None,
    recipe: LanguageRecipe,
    execution: Execution,
    label: Label,
) -> StageResult:
    """Train a tokenizer and a language model on captions; with `training_set` on those of its training period only."""
    assert recipe.text is not None
    found = load_placed(captions.folder)
    if training_set is not None:
        found = _of_training(found, training_set)
    documents = make_documents(found, recipe.text.held_out)
    parts = {part: [d for d in documents if d.part == part] for part in ("train", "validation")}
    if not all(parts.values()):
        raise ValueError(
            f"{len(documents)} documents of {len({d.date for d in documents})} days are too few to hold some out for "
            f"validation; give more captions, or raise text.held_out ({recipe.text.held_out:g})"
        )
    train_tokenizer((text for d in parts["train"] for text in d.texts), recipe.text.vocabulary, job.folder / FOLDER)
    path = job.workspace.scratch / "documents.jsonl"
    write_documents(path, documents)
    result = train(
        job,
        language_objective(job.folder / FOLDER, path, recipe),
        training=recipe.text.training,
        execution=execution,
    )
    counts = {"documents": len(parts["train"]), "held_out": len(parts["validation"]), **result.counts}
    return replace(result, counts=counts)


def _of_training(captions: list[PlacedCaption], training_set: Asset) -> list[PlacedCaption]:
    """Return the captions whose whole date lies in the training period."""
    from storage.training_set import TrainingSet

    blocks = TrainingSet.load(training_set.folder).blocks("train")
    return [c for c in captions if any(b.start.date() < c.date < b.end.date() for b in blocks)]
