"""Narrators put together: from their frozen parts for training, and again from a release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.weather_lm import LanguageRecipe, NarratorRecipe
from models.language.models import LanguageModel, adapt, build_language_model
from models.weather.narrator import Narrator
from models.weather.prefixer import Prefixer
from tasks.mae.released import MaeRelease, load_mae
from tasks.text.tokens import FOLDER, Tokens
from tasks.training.release import load_released


@dataclass(frozen=True)
class Parts:
    """The frozen parts of a narrator, and where they are from."""

    mae: Path
    """Folder of the released vision model."""
    language: Path | None
    """Folder of a language model that was trained here; none where the recipe says where it is."""
    recipe: LanguageRecipe

    def tokens(self) -> Tokens:
        """Return the tokenizer."""
        return Tokens.load(self.recipe.tokenizer_source if self.language is None else self.language / FOLDER)

    def language_model(self, recipe: NarratorRecipe, tokens: Tokens) -> LanguageModel:
        """Return the language model, frozen but for what the recipe adapts."""
        if self.language is None:
            return build_language_model(self.recipe.model, len(tokens), recipe.adaptation)
        model, _ = load_released(self.language, build_trained_language)
        assert isinstance(model, LanguageModel)
        adapt(model, recipe.adaptation)
        return model


def build_trained_language(model: Mapping[str, Any]) -> LanguageModel:
    """Build a language model from the `model` part of its `config.json`."""
    return build_language_model(LanguageRecipe.model_validate(model["recipe"]).model, model["vocabulary"])


def assemble(parts: Parts, recipe: NarratorRecipe, tokens: Tokens) -> tuple[Narrator, MaeRelease]:
    """Return a narrator with a new adapter, and the vision model's release.

    Raises:
        ValueError: soft prompts, prompt and caption do not fit into the language model's sequence.
    """
    mae = load_mae(parts.mae)
    language = parts.language_model(recipe, tokens)
    check_length(recipe, language.positions)
    encoder = mae.network
    adapter = Prefixer(
        recipe.prefixer, encoder.token_width, encoder.token_grid, language.width, language.embedding_scale()
    )
    return Narrator(encoder, adapter, language), mae


def check_length(recipe: NarratorRecipe, positions: int) -> None:
    """Refuse a recipe whose sequences may be longer than the language model takes."""
    needed = recipe.prefixer.tokens + recipe.max_prompt_tokens + recipe.max_caption_tokens
    if needed > positions:
        raise ValueError(
            f"Keep LM.seq_len >= M + max_caption_len: {recipe.prefixer.tokens} soft prompt tokens, up to "
            f"{recipe.max_prompt_tokens} of the prompt and {recipe.max_caption_tokens} of a caption need {needed} "
            f"positions, and the language model has {positions}; lower prefixer.tokens or max_caption_tokens"
        )


@dataclass(frozen=True)
class NarratorRelease:
    """A trained narrator in evaluation mode."""

    narrator: Narrator
    mae: MaeRelease
    tokens: Tokens
    recipe: NarratorRecipe
    language: LanguageRecipe


def load_narrator(folder: Path, mae: Path, language: Path | None) -> NarratorRelease:
    """Read a released narrator, and its frozen parts from where they are."""
    found: dict[str, Any] = {}

    def build(model: Mapping[str, Any]) -> Narrator:
        recipe = NarratorRecipe.model_validate(model["recipe"])
        parts = Parts(mae, language, LanguageRecipe.model_validate(model["language"]))
        tokens = parts.tokens()
        narrator, release = assemble(parts, recipe, tokens)
        found.update(mae=release, tokens=tokens, recipe=recipe, language=parts.recipe)
        return narrator

    narrator, _ = load_released(folder, build)
    assert isinstance(narrator, Narrator)
    return NarratorRelease(narrator, **found)
