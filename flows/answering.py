"""Decoders that answer questions, trained side by side: what pipelines with questions about anything have in common."""

from __future__ import annotations

from typing import Any

from configs.answering import AnsweringRecipe
from configs.training import Execution
from tasks.answering.packed import answerer_packing
from tasks.answering.training import answerer_training
from tasks.stage import Label
from tasks.training.launch import train_all


def answerers(recipe: AnsweringRecipe, questions: Any, encoder: Any, execution: Execution) -> dict[str, Any]:
    """Train every decoder with every seed, and pack some of them; return `decoder-seed` -> asset."""

    def training(label: Label, seed: int, name: str) -> Any:
        decoder = recipe.decoders[name]
        settings = decoder.training or recipe.training
        return answerer_training(
            questions=questions,
            encoder=encoder,
            design=decoder.design,
            vocabulary=recipe.vocabulary,
            questions_at_once=recipe.questions_at_once,
            halting_weight=recipe.halting_weight,
            validation_questions=recipe.validation_questions,
            training=settings.model_copy(update={"seed": seed}),
            execution=execution,
            label=label,
        )

    wanted = [(name, seed, name) for name in recipe.decoders for seed in recipe.seeds_of(name)]
    models = train_all(wanted, execution, training)
    for name, packed in recipe.packed.items():
        models[name] = answerer_packing(
            model=models[f"{packed.decoder}-{recipe.seeds_of(packed.decoder)[0]}"],
            questions=questions,
            recipe=packed.recipe,
            label=Label(name),
        )
    return models
