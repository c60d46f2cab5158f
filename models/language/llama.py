"""Llama decoders, pretrained or from scratch."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from configs.language import LlamaLanguageConfig, LlamaSizes
from models.language.transformers_lm import TransformersLM, from_scratch, shared_settings
from models.pretrained import load_pretrained


class Llama(TransformersLM):
    """A Llama decoder (arXiv 2302.13971)."""

    def __init__(self, config: LlamaLanguageConfig, vocabulary: int, dtype: torch.dtype) -> None:
        if config.pretrained:
            super().__init__(load_pretrained(LlamaForCausalLM, config.pretrained, needed=("",)))
        else:
            assert config.sizes is not None
            super().__init__(from_scratch(_settings(config.sizes, vocabulary), dtype))


def _settings(sizes: LlamaSizes, vocabulary: int) -> LlamaConfig:
    return LlamaConfig(**shared_settings(sizes, vocabulary), num_key_value_heads=sizes.kv_heads, rms_norm_eps=1e-5)
