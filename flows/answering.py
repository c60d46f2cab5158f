"""Decoders that answer questions, trained side by side: what pipelines with questions about anything have in common."""

from __future__ import annotations

from typing import Any

from configs.answering import AnswererRecipe, AnsweringRecipe
from configs.training import Execution
from tasks.answering.packed import answerer_packing
from tasks.answering.training import answerer_training
from tasks.stage import Label
from tasks.training.launch import train_all


def answerers(recipe: AnsweringRecipe, questions: Any, encoder: Any, execution: Execution) -> dict[str, Any]:
    """Train every decoder with every seed, and pack some of them; return `decoder-seed` -> asset."""

    def training(label: Label, seed: int, decoder: AnswererRecipe) -> Any:
        assert decoder.training is not None
        return answerer_training(
            questions=questions,
            encoder=encoder,
            design=decoder.design,
            vocabulary=recipe.vocabulary,
            questions_at_once=recipe.questions_at_once,
            halting_weight=recipe.halting_weight,
            validation_questions=recipe.validation_questions,
            training=decoder.training.model_copy(update={"seed": seed}),
            execution=execution,
            label=label,
        )

    trainings = recipe.trainings()
    models = train_all(trainings, execution, training)
    for name, packed in recipe.packed.items():
        models[name] = answerer_packing(
            model=next(models[f"{trained}-{seed}"] for trained, seed, _ in trainings if trained == packed.decoder),
            questions=questions,
            recipe=packed.recipe,
            label=Label(name),
        )
    return models
