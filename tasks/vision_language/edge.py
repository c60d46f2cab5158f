"""A released vision-language model as a folder for a small board, where nothing imports torch."""

from __future__ import annotations

from pathlib import Path

import torch

from models.language.transformers_lm import TransformersLM
from models.vision_language.edge import EdgeAnswer, EdgeQuestion, EdgeVision
from models.vision_language.microvlm import MicroVLM
from tasks.quantise.edge_folder import EdgeMemory, EdgeSettings, write_edge_memory, write_engine
from tasks.quantise.gguf_file import FloatType, TernaryType, embeddings_in, write_gguf
from tasks.quantise.onnx_file import write_onnx
from tasks.quantise.unpacking import decoder_of, unpacked
from tasks.vision_language.released import VlmRelease

CONTEXT = 512
"""Positions that the engine keeps, at most."""
MODEL, VISION, QUESTION, ANSWER, MEMORY = (
    "model.gguf", "vision.onnx", "question.onnx", "answer.onnx", "memory.safetensors"
)  # fmt: skip


def write_edge(
    folder: Path,
    release: VlmRelease,
    name: str,
    *,
    ternary: TernaryType = "TQ1_0",
    embeddings: FloatType = "Q8_0",
) -> None:
    """Write what the edge engine needs of a packed or an exact model.

    Args:
        folder: where to.
        release: the model.
        name: what it is called; a file of its memory belongs to this name.
        ternary: how ternary weights are stored.
        embeddings: what embeddings and heads become that are not packed; in fewer bits than 8 they should be trained.

    Raises:
        ValueError: a decoder that is neither Qwen2 nor Llama, or a memory that is told by keys and values.
    """
    network, tokens = release.network, release.tokens
    if network.recall.scale is None:
        raise ValueError(
            "this model's memory is told to every layer as keys and values, and llama.cpp takes tokens only; train "
            "with recall.injection prefix"
        )
    assert isinstance(network.language, TransformersLM), "vision-language models have a decoder of transformers"
    write_gguf(folder / MODEL, decoder_of(network.language.hf), ternary=ternary, embeddings=embeddings)
    write_parts(folder, network)
    tokens.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    rows, offset = embeddings_in(folder / MODEL)
    after = tuple(tokens.encode("", "")[0][1:])
    noise = release.design.model.recall.memory.noise
    memory = EdgeMemory(noise, after, network.alignment.longest, rows, offset)
    describe = release.design.phrases.describe
    square = network.vision.square
    positions = min(CONTEXT, network.language.positions)
    settings = EdgeSettings(
        name, square.side, square.fit, describe, tokens.begin, tokens.end, memory, context=positions
    )
    write_engine(folder, settings)


def write_parts(folder: Path, network: MicroVLM) -> None:
    """Write all of a model but its decoder and its tokenizer."""
    width, side, longest = network.language.width, network.vision.side, network.alignment.longest
    vision, question, answer = (unpacked(part(network)) for part in (EdgeVision, EdgeQuestion, EdgeAnswer))
    image = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    write_onnx(folder / VISION, vision, {"pixels": image}, ["prefix", "content"])
    attended = torch.arange(longest)[None] < 2
    asked = {"embeddings": torch.zeros(1, longest, width), "attended": attended, "now": torch.ones(1).long()}
    write_onnx(folder / QUESTION, question, asked, ["query"])
    found = {"query": torch.ones(1, width), "content": torch.ones(1, width)}
    write_onnx(folder / ANSWER, answer, found, ["tokens", "scope"])
    state, recall = network.recall.memory.prior(), network.recall
    tensors = {"prior_mean": state.mean[0], "prior_variance": state.covariance[0].diagonal(), "when": recall.when}
    write_edge_memory(folder / MEMORY, {name: value.detach().float().numpy() for name, value in tensors.items()})
