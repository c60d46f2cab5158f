"""The stage that pretrains SatSwinMAE."""

from __future__ import annotations

from configs.training import Execution
from configs.weather_lm import MaeRecipe
from storage.assets import Asset
from tasks.stage import Job, StageResult, stage
from tasks.training.launch import train


@stage("weather_mae", objective="tasks.mae.objective:MaeObjective")
def mae_training(
    job: Job, *, store: Asset, training_set: Asset, recipe: MaeRecipe, execution: Execution
) -> StageResult:
    """Pretrain the vision model on windows of the training period and judge it on those of the validation period."""
    return train(
        job,
        objective_config={"store": str(store.folder), "training_set": str(training_set.folder), "recipe": recipe},
        training=recipe.training,
        execution=execution,
    )
