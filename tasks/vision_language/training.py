"""The stage that trains one stage of a vision-language model."""

from __future__ import annotations

from configs.microvlm import VlmDesign, VlmStage
from configs.training import Execution
from storage.assets import Asset
from tasks.stage import Job, Label, StageResult, stage
from tasks.training.launch import train
from tasks.training.spec import ObjectiveSpec

OBJECTIVE = "tasks.vision_language.objective:VlmObjective"


@stage("microvlm_model", objective=OBJECTIVE)
def vlm_training(
    job: Job,
    *,
    shards: Asset,
    index: Asset,
    language: Asset | None,
    start: Asset | None,
    design: VlmDesign,
    settings: VlmStage,
    execution: Execution,
    label: Label,
) -> StageResult:
    """Train parts of the model on the training split, from new weights or on from the stage before (`start`)."""
    return train(
        job,
        ObjectiveSpec(
            OBJECTIVE,
            {
                "shards": str(shards.folder),
                "index": str(index.folder),
                "language": str(language.folder) if language else None,
                "start": str(start.folder) if start else None,
                "design": design,
                "stage": settings,
            },
        ),
        training=settings.training,
        execution=execution,
    )
