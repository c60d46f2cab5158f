"""Decoders of transformers as the JSON that they are built from again, whatever they were built from first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM

from models.language.transformers_lm import TransformersLM


def decoder_config(language: TransformersLM) -> dict[str, Any]:
    """Return what transformers builds a decoder of this architecture and these sizes from."""
    config = language.hf.config.to_dict()
    return {name: value for name, value in config.items() if value is not None and not name.startswith(("_", "dtype"))}


def random_decoder(config: Mapping[str, Any]) -> TransformersLM:
    """Return the decoder that a `decoder_config` describes, with random weights."""
    settings = dict(config)
    return TransformersLM(
        AutoModelForCausalLM.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
    )
