"""The stage that trains a tokenizer and a language model on the texts of an image-text index, without images."""

from __future__ import annotations

from dataclasses import replace

from configs.language import LanguageModelConfig
from configs.microvlm import CaptionTraining, Phrases
from configs.training import Execution
from storage.assets import Asset
from storage.image_texts import read_texts
from tasks.stage import Job, StageResult, stage
from tasks.text.tokens import FOLDER, train_tokenizer
from tasks.training.launch import train
from tasks.training.spec import ObjectiveSpec
from tasks.vision_language.texts import write_texts

OBJECTIVE = "tasks.vision_language.language_objective:CaptionLanguageObjective"


@stage("microvlm_language", objective=OBJECTIVE)
def caption_language_training(
    job: Job,
    *,
    shards: Asset,
    index: Asset,
    language: LanguageModelConfig,
    phrases: Phrases,
    text: CaptionTraining,
    execution: Execution,
) -> StageResult:
    """Train a tokenizer and a language model on the texts of the training split."""
    parts = {part: read_texts(shards.folder, index.folder, part) for part in ("train", "validation")}
    if not all(parts.values()):
        raise ValueError("the index has no texts for training, or none for validation; raise splits.validation_share")
    asked = [question for question, _ in parts["train"]]
    said = [said for _, said in parts["train"]]
    prompts = [phrases.describe, phrases.previous, *phrases.recall]
    train_tokenizer([*prompts, *asked, *said], text.vocabulary, job.folder / FOLDER)
    path = job.workspace.scratch / "texts.json"
    write_texts(path, parts)
    result = train(
        job,
        ObjectiveSpec(
            OBJECTIVE,
            {
                "language": language,
                "phrases": phrases,
                "tokenizer": str(job.folder / FOLDER),
                "texts": str(path),
                "longest": text.longest,
            },
        ),
        training=text.training,
        execution=execution,
    )
    counts = {"texts": len(parts["train"]), "held_out": len(parts["validation"])}
    return replace(result, counts={**counts, **result.counts})
