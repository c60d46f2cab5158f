"""The edge engine's environment, and small models for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tasks.quantise.decoder import Codes, Decoder, Weight
from tasks.quantise.edge_process import edge_python

VOCABULARY = 300


@pytest.fixture(scope="session")
def edge() -> Path:
    """The interpreter that has llama.cpp, with gguf in this one; else the test is skipped."""
    try:
        return edge_python()
    except ValueError as error:
        pytest.skip(str(error))


def ternary_qwen2(hidden: int, heads: int, scale: float) -> tuple[Qwen2ForCausalLM, Decoder]:
    """A model whose linear layers are ternary and whose embeddings are int4, and the same as codes."""
    config = Qwen2Config(hidden_size=hidden, num_hidden_layers=2, num_attention_heads=heads, num_key_value_heads=2,
                         intermediate_size=400, vocab_size=VOCABULARY, tie_word_embeddings=True)  # fmt: skip
    torch.manual_seed(0)
    model, rng = Qwen2ForCausalLM(config).eval(), np.random.default_rng(0)
    weights: dict[str, Weight] = {}
    for name, parameter in model.named_parameters():
        if name.endswith("proj.weight"):
            weights[name] = Codes.ternary(rng.integers(-1, 2, parameter.shape, np.int8), scale)
        elif "embed" in name:
            codes = rng.integers(-8, 8, parameter.shape, np.int8)
            weights[name] = Codes(codes, np.full((VOCABULARY, hidden // 32), 2**-6, np.float32), 4)
        else:
            weights[name] = (parameter.detach() + 0.1 * torch.randn_like(parameter)).numpy()
    values = {name: torch.from_numpy(w.values() if isinstance(w, Codes) else w) for name, w in weights.items()}
    model.load_state_dict(values, strict=False)
    return model, Decoder.of(config.to_dict(), weights)
