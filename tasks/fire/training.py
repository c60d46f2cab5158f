"""The stage that trains one fire model."""

from __future__ import annotations

from configs.training import Execution
from configs.wildfire import FireRecipe
from storage.assets import Asset
from tasks.stage import Job, Label, StageResult, stage
from tasks.training.launch import train


@stage("fire_model", objective="tasks.fire.objective:FireObjective")
def fire_training(
    job: Job, *, cache: Asset, split: Asset, recipe: FireRecipe, seed: int, execution: Execution, label: Label
) -> StageResult:
    """Train a model on the training fires and release the weights that suit the validation fires best."""
    return train(
        job,
        objective_config={
            "cache": str(cache.folder),
            "split": str(split.folder),
            "recipe": recipe,
        },
        training=recipe.training.model_copy(update={"seed": seed}),
        execution=execution,
    )
