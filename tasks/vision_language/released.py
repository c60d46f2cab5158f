"""Released vision-language models: put together from their parts for training, and again from a release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from configs.microvlm import VlmDesign
from models.build import build
from models.language.build import build_language_model
from models.language.interface import LanguageModel
from models.vision_language.microvlm import MicroVLM
from tasks.text.tokens import FOLDER, Tokens
from tasks.training.release import Release, reference, referred
from tasks.vision_language.language_released import CaptionLanguageRelease


@dataclass(frozen=True)
class VlmParts:
    """Where a model's language model and tokenizer are from."""

    language: Path | None
    """Folder of a language model that was trained here; none where the design says where it is."""
    design: VlmDesign

    def tokens(self) -> Tokens:
        """Return the tokenizer."""
        source = self.language / FOLDER if self.language else self.design.tokenizer_source
        assert source, "a design without a tokenizer has a language model that was trained here"
        return Tokens.load(source)

    def language_model(self, tokens: Tokens) -> LanguageModel:
        """Return the language model."""
        if self.language is None:
            return build_language_model(self.design.model.language, len(tokens))
        return CaptionLanguageRelease.from_release(self.language).network


def assemble(parts: VlmParts, tokens: Tokens) -> MicroVLM:
    """Return a model with new parts around its language model."""
    model: MicroVLM = build(parts.design.model, parts.language_model(tokens))
    return model


def vlm_config(parts: VlmParts) -> dict[str, Any]:
    """Return what a model needs, as JSON, to be put together again; its language model is referred to."""
    return {
        "design": parts.design.model_dump(mode="json"),
        "language": reference(parts.language) if parts.language else None,
    }


@dataclass(frozen=True)
class VlmRelease(Release):
    """A trained vision-language model with its tokenizer and its prompts."""

    network: MicroVLM
    tokens: Tokens
    design: VlmDesign

    @classmethod
    def restore(cls, model: Mapping[str, Any], weights: Mapping[str, Any], folder: Path) -> Self:
        """Return the release that `vlm_config` describes, with its language model from where it is.

        Raises:
            ValueError: the language model is gone.
        """
        language = referred(folder, model["language"]) if model["language"] else None
        parts = VlmParts(language, VlmDesign.model_validate(model["design"]))
        tokens = parts.tokens()
        return cls(assemble(parts, tokens), tokens, parts.design)
