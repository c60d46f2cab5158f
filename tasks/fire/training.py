"""The stage that trains one fire model."""

from __future__ import annotations

from pathlib import Path

from configs.training import Execution
from configs.wildfire import FireRecipe
from storage.assets import Asset
from tasks.stage import Job, Label, StageResult, stage
from tasks.training.launch import train
from tasks.training.spec import ObjectiveSpec

OBJECTIVE = "tasks.fire.objective:FireObjective"


def fire_objective(cache: Path, split: Path, recipe: FireRecipe) -> ObjectiveSpec:
    """Return what fire models are trained towards, on the fires of a split."""
    return ObjectiveSpec(OBJECTIVE, {"cache": str(cache), "split": str(split), "recipe": recipe})


@stage("fire_model", objective=OBJECTIVE)
def fire_training(
    job: Job, *, cache: Asset, split: Asset, recipe: FireRecipe, seed: int, execution: Execution, label: Label
) -> StageResult:
    """Train a model on the training fires and release the weights that suit the validation fires best."""
    return train(
        job,
        fire_objective(cache.folder, split.folder, recipe),
        training=recipe.training.model_copy(update={"seed": seed}),
        execution=execution,
    )
