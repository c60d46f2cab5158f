"""The stage that trains an image encoder that is aligned with texts."""

from __future__ import annotations

from configs.alignment import AlignmentRecipe, SmallTextConfig
from configs.training import Execution
from storage.assets import Asset
from storage.image_texts import read_texts
from tasks.stage import Job, StageResult, stage
from tasks.text.tokens import FOLDER, train_tokenizer
from tasks.training.launch import train
from tasks.training.spec import ObjectiveSpec

OBJECTIVE = "tasks.alignment.objective:AlignmentObjective"


@stage("image_encoder", objective=OBJECTIVE)
def alignment_training(
    job: Job, *, shards: Asset, index: Asset, recipe: AlignmentRecipe, execution: Execution
) -> StageResult:
    """Align images of the training split with what is said of them, in a space whose first channels are one as well."""
    if isinstance(text := recipe.model.text, SmallTextConfig):
        told = read_texts(shards.folder, index.folder, "train")
        texts = [part for text in told for part in text if part]
        train_tokenizer(texts, text.vocabulary, job.folder / FOLDER)
    return train(
        job,
        ObjectiveSpec(
            OBJECTIVE,
            {
                "shards": str(shards.folder),
                "index": str(index.folder),
                "tokenizer": recipe.tokenizer_source or str(job.folder / FOLDER),
                "recipe": recipe,
            },
        ),
        training=recipe.training,
        execution=execution,
    )
