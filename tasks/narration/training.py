"""The stage that trains an adapter between a frozen vision encoder and a frozen language model."""

from __future__ import annotations

from configs.training import Execution
from configs.weather_lm import JoinConfig, LanguageRecipe, NarratorRecipe
from storage.assets import Asset
from tasks.stage import Job, Label, StageResult, stage
from tasks.training.launch import train
from tasks.training.spec import ObjectiveSpec

OBJECTIVE = "tasks.narration.objective:NarratorObjective"


@stage("weather_narrator", objective=OBJECTIVE)
def narrator_training(
    job: Job,
    *,
    store: Asset,
    training_set: Asset,
    captions: Asset,
    mae: Asset,
    language: Asset | None,
    join: JoinConfig,
    language_recipe: LanguageRecipe,
    recipe: NarratorRecipe,
    seed: int,
    execution: Execution,
    label: Label,
) -> StageResult:
    """Train soft prompts that let the language model say what the captions of the training period say."""
    return train(
        job,
        ObjectiveSpec(
            OBJECTIVE,
            {
                "store": str(store.folder),
                "training_set": str(training_set.folder),
                "captions": str(captions.folder),
                "mae": str(mae.folder),
                "language": str(language.folder) if language else None,
                "join": join,
                "language_recipe": language_recipe,
                "recipe": recipe,
            },
        ),
        training=recipe.training.model_copy(update={"seed": seed}),
        execution=execution,
    )
