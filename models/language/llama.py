"""Llama decoders."""

from __future__ import annotations

from transformers import LlamaConfig, LlamaForCausalLM

from configs.language import LlamaSizes
from models.language.transformers_lm import SizedLM, shared_settings


class Llama(SizedLM):
    """A Llama decoder (arXiv 2302.13971)."""

    ARCHITECTURE = LlamaForCausalLM
    WHOLLY_CAUSAL = True

    @staticmethod
    def settings(sizes: LlamaSizes, vocabulary: int) -> LlamaConfig:
        """Return what transformers builds a Llama from."""
        shared = shared_settings(sizes, vocabulary)
        return LlamaConfig(
            **shared, num_key_value_heads=sizes.kv_heads, tie_word_embeddings=sizes.tied, rms_norm_eps=1e-5
        )
