"""The stage that pretrains SatSwinMAE."""

from __future__ import annotations

from pathlib import Path

from configs.training import Execution
from configs.weather_lm import MaeRecipe
from storage.assets import Asset
from tasks.stage import Job, StageResult, stage
from tasks.training.launch import train
from tasks.training.spec import ObjectiveSpec

OBJECTIVE = "tasks.mae.objective:MaeObjective"


def mae_objective(store: Path, training_set: Path, recipe: MaeRecipe) -> ObjectiveSpec:
    """Return what the vision model is trained towards, on the windows of a training set."""
    return ObjectiveSpec(OBJECTIVE, {"store": str(store), "training_set": str(training_set), "recipe": recipe})


@stage("weather_mae", objective=OBJECTIVE)
def mae_training(
    job: Job, *, store: Asset, training_set: Asset, recipe: MaeRecipe, execution: Execution
) -> StageResult:
    """Pretrain the vision model on windows of the training period and judge it on those of the validation period."""
    return train(
        job,
        mae_objective(store.folder, training_set.folder, recipe),
        training=recipe.training,
        execution=execution,
    )
