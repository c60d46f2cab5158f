"""Language models from their configuration."""

from __future__ import annotations

import torch

from configs.language import LanguageConfig
from models.build import build
from models.language.interface import LanguageModel


def build_language_model(config: LanguageConfig, vocabulary: int, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Return the language model for token ids below `vocabulary`, all of which can be trained.

    Weights that start at random are of `dtype`. Raises ValueError where pretrained weights cannot be loaded or have no
    embedding for every id.
    """
    lm: LanguageModel = build(config, vocabulary, dtype)
    if lm.embedding_table.shape[0] < vocabulary:
        raise ValueError(
            f"the tokenizer has {vocabulary} tokens and the language model {lm.embedding_table.shape[0]}; "
            "name the tokenizer of this model"
        )
    return lm
