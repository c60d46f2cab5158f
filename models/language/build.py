"""Language models from their configuration, adapted where it says so."""

from __future__ import annotations

import torch

from configs.language import (
    Adaptation,
    LanguageModelConfig,
)
from models.build import build
from models.language.adaptation import adapt
from models.language.interface import LanguageModel


def build_language_model(
    config: LanguageModelConfig, vocabulary: int, adaptation: Adaptation | None = None
) -> LanguageModel:
    """Return the language model for token ids below `vocabulary`, adapted, or trainable in full when None.

    Weights are fp32, except for those that the adaptation quantises. Raises ValueError where pretrained weights cannot
    be loaded or have no embedding for every id.
    """
    # What is quantised at once need not be held in fp32 before.
    dtype = torch.bfloat16 if adaptation is not None and adaptation.four_bit else torch.float32
    lm: LanguageModel = build(config, vocabulary, dtype)
    if lm.embedding_table.shape[0] < vocabulary:
        raise ValueError(
            f"the tokenizer has {vocabulary} tokens and the language model {lm.embedding_table.shape[0]}; "
            "name the tokenizer of this model"
        )
    if adaptation is not None:
        adapt(lm, adaptation)
    return lm.to(torch.float32)
