"""A stage that trains the toy; run as a program it is what the crash tests kill."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from configs.training import Execution, TrainingConfig
from storage.assets import AssetStore
from tasks.progress import Silent
from tasks.session import Session
from tasks.stage import Job, StageResult, stage
from tasks.training.launch import train
from tasks.training.spec import ObjectiveSpec


@stage("toy_training", objective="tests.training.toy:Toy")
def toy_training(job: Job, *, objective: dict[str, Any], training: TrainingConfig) -> StageResult:
    """Train the toy; the execution comes by the environment, for it must not enter the key."""
    execution = Execution.model_validate(json.loads(os.environ["TOY_EXECUTION"]))
    return train(job, ObjectiveSpec("tests.training.toy:Toy", objective), training=training, execution=execution)


def main(root: str, training: str) -> None:
    """Run the stage as a person would, in a process of its own."""
    session = Session(AssetStore(Path(root)), Silent())
    with session.active():
        asset = toy_training(objective={}, training=TrainingConfig.model_validate_json(training))
    print(session.outcomes[0].label, asset.folder)


if __name__ == "__main__":
    from tests.training import toy_stage

    toy_stage.main(sys.argv[1], sys.argv[2])
