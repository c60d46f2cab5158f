"""Released language models that were trained on captions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter

from configs.language import LanguageModelConfig
from models.language.build import build_language_model
from models.language.interface import LanguageModel
from tasks.text.tokens import FOLDER, Tokens
from tasks.training.release import Release


def caption_language_config(language: LanguageModelConfig, vocabulary: int) -> dict[str, Any]:
    """Return what a language model needs, as JSON, to be built again."""
    return {"language": language.model_dump(mode="json"), "vocabulary": vocabulary}


@dataclass(frozen=True)
class CaptionLanguageRelease(Release):
    """A language model with its tokenizer."""

    network: LanguageModel
    tokens: Tokens

    @classmethod
    def restore(cls, model: Mapping[str, Any], weights: Mapping[str, Any], folder: Path) -> Self:
        """Return the release that `caption_language_config` describes."""
        language: LanguageModelConfig = TypeAdapter(LanguageModelConfig).validate_python(model["language"])
        return cls(build_language_model(language, model["vocabulary"]), Tokens.load(folder / FOLDER))
