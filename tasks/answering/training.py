"""The stage that trains a decoder to answer."""

from __future__ import annotations

from configs.answering import AnswererDesign
from configs.training import Execution, TrainingConfig
from storage.assets import Asset
from storage.question_set import QuestionSet
from tasks.stage import Job, Label, StageResult, stage
from tasks.text.tokens import FOLDER, train_tokenizer
from tasks.training.launch import train
from tasks.training.spec import ObjectiveSpec

OBJECTIVE = "tasks.answering.objective:AnswerObjective"


@stage("answerer", objective=OBJECTIVE)
def answerer_training(
    job: Job,
    *,
    questions: Asset,
    encoder: Asset | None,
    design: AnswererDesign,
    vocabulary: int,
    questions_at_once: int,
    halting_weight: float,
    validation_questions: int,
    training: TrainingConfig,
    execution: Execution,
    label: Label,
) -> StageResult:
    """Train a decoder on the questions of the training split, about what the encoder saw."""
    if not design.tokenizer_source:
        asked = QuestionSet(questions.folder).asked("train")
        texts = [text for one in asked for text in (one.question, f" {one.answer}")]
        train_tokenizer(texts, vocabulary, job.folder / FOLDER)
    return train(
        job,
        ObjectiveSpec(
            OBJECTIVE,
            {
                "questions": str(questions.folder),
                "encoder": encoder.name if encoder else None,
                "tokenizer": design.tokenizer_source or str(job.folder / FOLDER),
                "design": design,
                "questions_at_once": questions_at_once,
                "halting_weight": halting_weight,
                "validation_questions": validation_questions,
            },
        ),
        training=training,
        execution=execution,
    )
