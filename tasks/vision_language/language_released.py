"""Released language models that were trained on captions, or pruned by their use in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter

from configs.language import LanguageModelConfig
from models.language.build import build_language_model
from models.language.decoder import decoder_config, random_decoder
from models.language.interface import LanguageModel
from models.language.transformers_lm import TransformersLM
from tasks.text.tokens import FOLDER, Tokens
from tasks.training.release import Release


def caption_language_config(language: LanguageModelConfig, vocabulary: int) -> dict[str, Any]:
    """Return what a language model needs, as JSON, to be built again."""
    return {"language": language.model_dump(mode="json"), "vocabulary": vocabulary}


def pruned_language_config(language: TransformersLM) -> dict[str, Any]:
    """Return what a language model needs, as JSON, that is no longer what its configuration says."""
    return {"decoder": decoder_config(language)}


@dataclass(frozen=True)
class CaptionLanguageRelease(Release):
    """A language model with its tokenizer."""

    network: LanguageModel
    tokens: Tokens

    @classmethod
    def restore(cls, model: Mapping[str, Any], weights: Mapping[str, Any], folder: Path) -> Self:
        """Return the release that `caption_language_config` or `pruned_language_config` describes."""
        tokens = Tokens.load(folder / FOLDER)
        if "decoder" in model:
            return cls(random_decoder(model["decoder"]), tokens)
        language: LanguageModelConfig = TypeAdapter(LanguageModelConfig).validate_python(model["language"])
        return cls(build_language_model(language, model["vocabulary"]), tokens)
