"""Released answerers: put together for training, and again from a release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from configs.answering import AnswererDesign
from models.language.adaptation import build_adapted
from models.language.build import build_language_model
from models.language.decoder import decoder_config, random_decoder
from models.language.interface import LanguageModel
from models.language.transformers_lm import TransformersLM
from models.vision_language.answerer import Answerer
from storage.question_set import QuestionSet
from tasks.answering.samples import Asking
from tasks.text.tokens import FOLDER, Tokens
from tasks.training.release import Release


def decoder_of(design: AnswererDesign, tokens: Tokens) -> LanguageModel:
    """Return the decoder, of which the adaptation is trained."""
    if design.adaptation is None:
        return build_language_model(design.decoder, len(tokens))
    return build_adapted(design.decoder, len(tokens), design.adaptation)


def assemble(design: AnswererDesign, tokens: Tokens, questions: QuestionSet) -> Answerer:
    """Return a new answerer that sees what a question set has."""
    projection = questions.projection()
    projected = len(projection["weight"]) if projection else None
    model = Answerer(decoder_of(design, tokens), questions.tokens, questions.width, projected, vision=design.vision)
    model.project_as(projection)
    return model


def answerer_config(design: AnswererDesign, questions: QuestionSet, encoder: str | None) -> dict[str, Any]:
    """Return what an answerer needs, as JSON, to be put together again; `encoder` is kind/key of what it sees by."""
    projection = questions.projection()
    return {
        "design": design.model_dump(mode="json"),
        "tokens": questions.tokens,
        "width": questions.width,
        "projected": len(projection["weight"]) if projection else None,
        "encoder": encoder,
    }


@dataclass(frozen=True)
class AnswererRelease(Release):
    """A trained answerer with its tokenizer."""

    network: Answerer
    tokens: Tokens
    design: AnswererDesign
    encoder: str | None
    """kind/key of the encoder, beside whose root the model lies."""

    @property
    def asking(self) -> Asking:
        """How its questions become tokens."""
        return Asking.of(self.tokens, self.design)

    @classmethod
    def restore(cls, model: Mapping[str, Any], weights: Mapping[str, Any], folder: Path) -> Self:
        """Return the release that `answerer_config` describes."""
        design = AnswererDesign.model_validate(model["design"])
        packed_decoder = model.get("decoder")
        source = None if packed_decoder else design.tokenizer_source
        tokens = Tokens.load(source or folder / FOLDER)
        decoder = random_decoder(packed_decoder) if packed_decoder else decoder_of(design, tokens)
        network = Answerer(decoder, model["tokens"], model["width"], model["projected"], vision=design.vision)
        return cls(network, tokens, design, model["encoder"])


def self_contained(release: AnswererRelease, model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an answerer needs whose folder holds all of its weights."""
    language = release.network.language
    decoder = decoder_config(language) if isinstance(language, TransformersLM) else None
    return {**model, "decoder": decoder}
