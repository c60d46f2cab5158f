"""Released vision-language models: put together from their parts for training, and again from a release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from configs.language import Adaptation
from configs.microvlm import VlmDesign, VlmStage
from configs.quantise import QuantiseRecipe
from configs.vision_language import VitSizes
from models.build import build
from models.language.adaptation import adapt
from models.language.build import build_language_model
from models.language.decoder import decoder_config, random_decoder
from models.language.interface import LanguageModel
from models.language.transformers_lm import TransformersLM
from models.ternary import quantise
from models.vision_language.microvlm import MicroVLM
from tasks.text.tokens import FOLDER, Tokens
from tasks.training.release import Release, reference, referred
from tasks.vision_language.language_released import CaptionLanguageRelease

FOUR_BIT = Adaptation(four_bit=True)


@dataclass(frozen=True)
class VlmParts:
    """Where a model's language model and tokenizer are from."""

    language: Path | None
    """Folder of a language model that was trained here; none where the design says where it is."""
    design: VlmDesign
    decoder: Mapping[str, Any] | None = None
    """What transformers builds the language model from, where a release holds all of its weights."""

    def tokens(self) -> Tokens:
        """Return the tokenizer."""
        source = self.language / FOLDER if self.language else self.design.tokenizer_source
        assert source, "a design without a tokenizer has a language model that was trained here"
        return Tokens.load(source)

    def language_model(self, tokens: Tokens) -> LanguageModel:
        """Return the language model."""
        if self.decoder is not None:
            return random_decoder(self.decoder)
        if self.language is None:
            return build_language_model(self.design.model.language, len(tokens))
        return CaptionLanguageRelease.from_release(self.language).network


def assemble(parts: VlmParts, tokens: Tokens) -> MicroVLM:
    """Return a model with new parts around its language model."""
    model: MicroVLM = build(parts.design.model, parts.language_model(tokens))
    return model


def vlm_config(parts: VlmParts, settings: VlmStage) -> dict[str, Any]:
    """Return what a model of a stage needs, as JSON, to be put together again; its language model is referred to."""
    return {
        "design": parts.design.model_dump(mode="json"),
        "language": reference(parts.language) if parts.language else None,
        "four_bit": settings.four_bit,
        "quantised": settings.quantise.model_dump(mode="json") if settings.quantise else None,
    }


@dataclass(frozen=True)
class VlmRelease(Release):
    """A trained vision-language model with its tokenizer and its prompts."""

    network: MicroVLM
    tokens: Tokens
    design: VlmDesign
    four_bit: bool
    """Whether the language model is held as NF4."""
    quantised: QuantiseRecipe | None
    """How its layers are quantised, exact weights kept; none: they are not."""

    @classmethod
    def restore(cls, model: Mapping[str, Any], weights: Mapping[str, Any], folder: Path) -> Self:
        """Return the release that `vlm_config` describes, with its language model from where it is.

        One that holds all of its weights is packed, so it is `read_packed` that quantises it.

        Raises:
            ValueError: the language model is gone.
        """
        design = VlmDesign.model_validate(model["design"])
        if model.get("decoder"):
            parts, tokens = VlmParts(None, design, model["decoder"]), Tokens.load(folder / FOLDER)
        else:
            language = referred(folder, model["language"]) if model["language"] else None
            parts = VlmParts(language, design)
            tokens = parts.tokens()
        network = assemble(parts, tokens)
        quantised = QuantiseRecipe.model_validate(model["quantised"]) if model["quantised"] else None
        if quantised and not model.get("decoder"):
            quantise(network, quantised)
        if model["four_bit"]:
            adapt(network.language, FOUR_BIT)
        return cls(network, tokens, parts.design, model["four_bit"], quantised)


def self_contained_config(release: VlmRelease, recipe: QuantiseRecipe) -> dict[str, Any]:
    """Return what a model needs whose folder holds all of its weights: nothing is referred to, nothing downloaded."""
    network, design = release.network, release.design
    assert isinstance(network.language, TransformersLM), "quantised models have a decoder of transformers"
    found = network.vision.hf.config
    sizes = design.model.vision.sizes or VitSizes(
        side=found.image_size,
        patch=found.patch_size,
        hidden=found.hidden_size,
        layers=found.num_hidden_layers,
        heads=found.num_attention_heads,
        intermediate=found.intermediate_size,
    )
    vision = design.model.vision.model_copy(update={"pretrained": None, "sizes": sizes})
    whole = design.model_copy(update={"model": design.model.model_copy(update={"vision": vision})})
    return {
        "design": whole.model_dump(mode="json"),
        "language": None,
        "decoder": decoder_config(network.language),
        "four_bit": False,
        "quantised": recipe.model_dump(mode="json"),
    }
