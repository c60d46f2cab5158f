"""Narrators put together: from their frozen parts for training, and again from a release."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from configs.weather_lm import LanguageRecipe, NarratorRecipe
from models.language.adaptation import adapt, build_adapted
from models.language.build import build_language_model
from models.language.decoder import decoder_config, random_decoder
from models.language.interface import LanguageModel
from models.language.transformers_lm import TransformersLM
from models.weather.narrator import Narrator
from models.weather.prefixer import Prefixer
from tasks.mae.released import MaeRelease
from tasks.narration.language_released import LanguageRelease
from tasks.text.tokens import FOLDER, Tokens
from tasks.training.release import CONFIG, Release, reference, referred


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
            return build_adapted(self.recipe.model, len(tokens), recipe.adaptation)
        model = LanguageRelease.from_release(self.language).network
        adapt(model, recipe.adaptation)
        return model


def assemble(parts: Parts, recipe: NarratorRecipe, tokens: Tokens) -> tuple[Narrator, MaeRelease]:
    """Return a narrator with a new adapter, and the vision model's release.

    Raises:
        ValueError: soft prompts, prompt and caption do not fit into the language model's sequence.
    """
    mae = MaeRelease.from_release(parts.mae)
    language = parts.language_model(recipe, tokens)
    check_length(recipe, language.positions)
    return _joined(mae, language, recipe, language.embedding_scale()), mae


def _joined(mae: MaeRelease, language: LanguageModel, recipe: NarratorRecipe, scale: float) -> Narrator:
    encoder = mae.network
    adapter = Prefixer(recipe.prefixer, encoder.token_width, encoder.token_grid, language.width, scale)
    return Narrator(encoder, adapter, language, recipe.vision)


def check_length(recipe: NarratorRecipe, positions: int) -> None:
    """Refuse a recipe whose sequences may be longer than the language model takes."""
    needed = recipe.prefixer.tokens + recipe.max_prompt_tokens + recipe.max_caption_tokens
    if needed > positions:
        raise ValueError(
            f"Keep LM.seq_len >= M + max_caption_len: {recipe.prefixer.tokens} soft prompt tokens, up to "
            f"{recipe.max_prompt_tokens} of the prompt and {recipe.max_caption_tokens} of a caption need {needed} "
            f"positions, and the language model has {positions}; lower prefixer.tokens or max_caption_tokens"
        )


def narrator_config(recipe: NarratorRecipe, parts: Parts) -> dict[str, Any]:
    """Return what a narrator needs, as JSON, to be put together again; its frozen parts are referred to."""
    return {
        "recipe": recipe.model_dump(mode="json"),
        "language_recipe": parts.recipe.model_dump(mode="json"),
        "mae": reference(parts.mae),
        "language": reference(parts.language) if parts.language else None,
    }


@dataclass(frozen=True)
class NarratorRelease(Release):
    """A trained narrator, with its vision model's release and its tokenizer."""

    network: Narrator
    mae: MaeRelease
    tokens: Tokens
    recipe: NarratorRecipe
    language: LanguageRecipe

    @classmethod
    def restore(cls, model: Mapping[str, Any], weights: Mapping[str, Any], folder: Path) -> Self:
        """Return the release that `narrator_config` describes, with its frozen parts from where they are, or the one
        that `self_contained` describes, which has them all.

        Raises:
            ValueError: a frozen part is gone.
        """
        recipe = NarratorRecipe.model_validate(model["recipe"])
        if "mae_model" in model:
            return cls._whole(model, recipe, weights, folder)
        language = referred(folder, model["language"]) if model["language"] else None
        parts = Parts(referred(folder, model["mae"]), language, LanguageRecipe.model_validate(model["language_recipe"]))
        tokens = parts.tokens()
        narrator, mae = assemble(parts, recipe, tokens)
        return cls(narrator, mae, tokens, recipe, parts.recipe)

    @classmethod
    def _whole(cls, model: Mapping[str, Any], recipe: NarratorRecipe, weights: Mapping[str, Any], folder: Path) -> Self:
        language_recipe, tokens = LanguageRecipe.model_validate(model["language_recipe"]), Tokens.load(folder / FOLDER)
        decoder = model["decoder"]
        language = random_decoder(decoder) if decoder else build_language_model(language_recipe.model, len(tokens))
        mae = MaeRelease.restore(model["mae_model"], weights, folder)
        return cls(_joined(mae, language, recipe, 1.0), mae, tokens, recipe, language_recipe)


def self_contained(release: NarratorRelease, mae: Path) -> dict[str, Any]:
    """Return what a narrator without adapters needs whose folder holds all of its weights; `mae` is the folder of its
    vision model.
    """
    language = release.network.language
    return {
        "recipe": release.recipe.model_dump(mode="json"),
        "language_recipe": release.language.model_dump(mode="json"),
        "mae_model": json.loads((mae / CONFIG).read_text())["model"],
        "decoder": decoder_config(language) if isinstance(language, TransformersLM) else None,
    }
