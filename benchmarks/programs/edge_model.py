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
from transformers import Qwen2Config, Qwen2ForCausalLM

from configs.vision_language import MicroVlmModelConfig, RecallConfig, VitConfig, VitSizes
from models.language.transformers_lm import TransformersLM
from models.vision_language.microvlm import MicroVLM
from tasks.quantise.decoder import Codes, Decoder, Weight
from tasks.quantise.edge_folder import EdgeMemory, EdgeSettings, write_engine
from tasks.quantise.gguf_file import embeddings_in, write_gguf
from tasks.vision_language.edge import write_parts

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


def network_around(config: Qwen2Config, quick: bool) -> MicroVLM:
    """Return MicroVLM-V with random weights around a decoder that has none."""
    with torch.device("meta"):
        language = TransformersLM(Qwen2ForCausalLM(config))
    sizes = VitSizes(layers=2) if quick else VitSizes()
    recall = RecallConfig(injection="prefix")
    torch.manual_seed(0)
    return MicroVLM(MicroVlmModelConfig(vision=VitConfig(pretrained=None, sizes=sizes), recall=recall), language).eval()


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
    network = network_around(config, quick)
    write_parts(folder, network)
    write_tokenizer(folder / "tokenizer.json", config.vocab_size)
    memory = EdgeMemory(0.01, (2,), network.alignment.longest, *embeddings_in(folder / "model.gguf"))
    write_engine(
        folder,
        EdgeSettings(
            "random", network.vision.square.side, network.vision.square.fit, "Describe this image:", 0, -1, memory
        ),
    )


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
