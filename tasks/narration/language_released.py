"""Language models that were trained here, again from their release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from configs.weather_lm import LanguageRecipe
from models.language.build import build_language_model
from models.language.interface import LanguageModel
from tasks.text.tokens import FOLDER, Tokens
from tasks.training.release import Release


def language_config(recipe: LanguageRecipe, vocabulary: int) -> dict[str, Any]:
    """Return what a language model needs, as JSON, to be built again; its tokenizer lies beside its weights."""
    return {"recipe": recipe.model_dump(mode="json"), "vocabulary": vocabulary}


@dataclass(frozen=True)
class LanguageRelease(Release):
    """A language model that was trained here, with its tokenizer."""

    network: LanguageModel
    recipe: LanguageRecipe
    tokens: Tokens

    @classmethod
    def restore(cls, model: Mapping[str, Any], weights: Mapping[str, Any], folder: Path) -> Self:
        """Return the release that `language_config` describes."""
        recipe = LanguageRecipe.model_validate(model["recipe"])
        return cls(build_language_model(recipe.model, model["vocabulary"]), recipe, Tokens.load(folder / FOLDER))
