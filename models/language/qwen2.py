"""Qwen2 decoders."""

from __future__ import annotations

from transformers import Qwen2Config, Qwen2ForCausalLM

from configs.language import Qwen2Sizes
from models.language.transformers_lm import SizedLM, shared_settings

ROPE_THETA = 1e6


class Qwen2(SizedLM):
    """A Qwen2 decoder (arXiv 2407.10671): a Llama whose queries, keys and values have biases."""

    ARCHITECTURE = Qwen2ForCausalLM
    WHOLLY_CAUSAL = True

    @staticmethod
    def settings(sizes: Qwen2Sizes, vocabulary: int) -> Qwen2Config:
        """Return what transformers builds a Qwen2 from."""
        return Qwen2Config(
            **shared_settings(sizes, vocabulary),
            num_key_value_heads=sizes.kv_heads,
            tie_word_embeddings=sizes.tied,
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
            rms_norm_eps=1e-6,
        )
