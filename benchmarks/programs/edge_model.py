"""Writes a vision-language model for the edge engine at its full dimensions, from random weights.

Arguments: folder, vocabulary, embeddings ("int8", "int4" or "ternary"), ternary ("TQ1_0" or "TQ2_0"), whole (write
vision, memory and the engine too), quick. `linears: "Q4_0"` makes the peer: the same decoder of plain floats.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM, ViTConfig, ViTModel

from tasks.quantise.decoder import Codes, Decoder, Weight
from tasks.quantise.edge_folder import EdgeSettings, Prompt, write_edge_memory, write_engine
from tasks.quantise.gguf_file import write_gguf
from tasks.quantise.onnx_file import write_onnx

SIDE, PREFIX, SLOTS, SCOPE = 224, 25, 512, 256
RNG = np.random.default_rng(0)
BITS = {"int8": 8, "int4": 4, "ternary": 1.58}


def decoder_config(vocabulary: int, quick: bool) -> Qwen2Config:
    """Return the dimensions of Qwen2.5-0.5B, or tiny ones."""
    hidden, layers, intermediate = (224, 2, 512) if quick else (896, 24, 4864)
    return Qwen2Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        intermediate_size=intermediate,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=vocabulary,
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
    )


def random_weight(name: str, shape: tuple[int, ...], task: dict[str, Any]) -> Weight:
    """Return a weight in the form that a recipe gives it."""
    if len(shape) == 1:
        return np.ones(shape, np.float32) if name.endswith("norm.weight") else np.zeros(shape, np.float32)
    if "linears" in task:
        return (RNG.standard_normal(shape, np.float32) * np.float32(0.02)).astype(np.float32)
    if "embed" not in name:
        return Codes.ternary(RNG.integers(-1, 2, shape, np.int8), 0.02)
    bits, groups = BITS[task["embeddings"]], shape[1] // 32 if task["embeddings"] == "int4" else 1
    reach = {8: 127, 4: 7, 1.58: 1}[bits]
    codes = RNG.integers(-reach, reach + 1, shape, np.int8)
    return Codes(codes, np.full((shape[0], groups), 0.02 / reach, np.float32), bits)


class VisionAdapter(nn.Module):
    """DeiT-Tiny and an adapter that pools its patches to prefix tokens of the decoder, as the model has them."""

    def __init__(self, width: int, quick: bool) -> None:
        super().__init__()
        layers = 2 if quick else 12
        self.encoder = ViTModel(
            ViTConfig(hidden_size=192, num_hidden_layers=layers, num_attention_heads=3, intermediate_size=768),
            add_pooling_layer=False,
        )
        self.project = nn.Linear(192, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.queries = nn.Parameter(torch.randn(PREFIX, width) * 0.02)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.positions = nn.Parameter(torch.randn(PREFIX, width) * 0.02)
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return prefix tokens (1, K, C), and the code of the image for the memory (1, C), of pixels (1, 3, S, S)."""
        patches = self.encoder((pixels.float() / 255 - 0.5) / 0.25).last_hidden_state[:, 1:]
        tokens = self.mlp(self.project(patches))
        pooled, _ = self.attention(self.queries[None], tokens, tokens, need_weights=False)
        prefix = self.norm(pooled + self.positions) * 0.02
        return prefix, nn.functional.normalize(prefix.mean(1), dim=-1)


def memory_tensors(width: int) -> dict[str, np.ndarray]:
    """Return an empty memory, ScopeNet, and the layer that makes one vector of a reading."""
    shapes = {
        "prior_mean": (SLOTS, width),
        "prior_variance": (SLOTS,),
        "vectors.weight": (width, width),
        "vectors.bias": (width,),
        "scope.query.weight": (SCOPE, width),
        "scope.query.bias": (SCOPE,),
        "scope.statistics.weight": (SCOPE, 3),
        "scope.statistics.bias": (SCOPE,),
        "scope.layers.1.weight": (SCOPE, SCOPE),
        "scope.layers.1.bias": (SCOPE,),
        "scope.layers.3.weight": (1, SCOPE),
        "scope.layers.3.bias": (1,),
    }
    drawn = {name: (RNG.standard_normal(shape) / width**0.5).astype(np.float32) for name, shape in shapes.items()}
    return drawn | {"prior_variance": np.ones(SLOTS, np.float32)}


def write_tokenizer(path: Path, vocabulary: int) -> None:
    """Write a byte-level BPE tokenizer of so many tokens, each but the bytes joined from two others."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    known, merges = set(tokens), []
    while len(tokens) < vocabulary:
        left, right = (tokens[index] for index in RNG.integers(0, min(len(tokens), 2000), 2))
        if left + right not in known:
            tokens.append(left + right)
            known.add(left + right)
            merges.append((left, right))
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path), pretty=False)


def write_rest(folder: Path, config: Qwen2Config, quick: bool) -> None:
    """Write what is beside the decoder."""
    torch.manual_seed(0)
    vision = VisionAdapter(config.hidden_size, quick).eval()
    pixels = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
    write_onnx(folder / "vision.onnx", vision, {"pixels": pixels}, ["prefix", "code"])
    write_edge_memory(folder / "memory.safetensors", memory_tensors(config.hidden_size))
    write_tokenizer(folder / "tokenizer.json", config.vocab_size)
    prompt = Prompt(begin=(1,), caption=(2, 3, 4), before=(5,), after=(6,))
    write_engine(folder, EdgeSettings(side=SIDE, prompt=prompt, end=(), noise=0.03))


def main(task: dict[str, Any]) -> None:
    """Write, and answer with the bytes of every file."""
    folder = Path(task["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    config = decoder_config(task["vocabulary"], task["quick"])
    with torch.device("meta"):
        names = {name: tuple(value.shape) for name, value in Qwen2ForCausalLM(config).named_parameters()}
    weights = {name: random_weight(name, shape, task) for name, shape in names.items()}
    path, decoder = folder / "model.gguf", Decoder.of(config.to_dict(), weights)
    if "linears" in task:
        write_gguf(path, decoder, linears=task["linears"], embeddings=task["embeddings"])
    else:
        write_gguf(path, decoder, ternary=task["ternary"])
    if task["whole"]:
        write_rest(folder, config, task["quick"])
    files = {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    print(json.dumps({"files": files}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
