"""What language models are trained towards, and judged by."""

from __future__ import annotations

from pathlib import Path

from configs.weather_lm import LanguageRecipe
from tasks.training.spec import ObjectiveSpec

OBJECTIVE = "tasks.narration.language_objective:LanguageObjective"


def language_objective(tokenizer: Path, documents: Path, recipe: LanguageRecipe) -> ObjectiveSpec:
    """Return what language models are trained towards, on the documents in a file."""
    return ObjectiveSpec(OBJECTIVE, {"recipe": recipe, "tokenizer": str(tokenizer), "documents": str(documents)})
