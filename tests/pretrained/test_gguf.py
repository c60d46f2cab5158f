"""A GGUF file becomes a checkpoint of float32 that holds its values exactly, with the tokenizer that it carries."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from flows.commands.pull import pull_checkpoint
from storage.assets import AssetStore
from tasks.text.tokens import Tokens

HIDDEN, HEADS, KV_HEADS, INNER = 64, 4, 2, 96
LAYER = {
    "attn_q": ("self_attn.q_proj", HIDDEN, HIDDEN), "attn_k": ("self_attn.k_proj", HIDDEN // 2, HIDDEN),
    "attn_v": ("self_attn.v_proj", HIDDEN // 2, HIDDEN), "attn_output": ("self_attn.o_proj", HIDDEN, HIDDEN),
    "ffn_gate": ("mlp.gate_proj", INNER, HIDDEN), "ffn_up": ("mlp.up_proj", INNER, HIDDEN),
    "ffn_down": ("mlp.down_proj", HIDDEN, INNER),
}  # fmt: skip
"""Name in GGUF: name in transformers and shape."""


def turned(weight: np.ndarray, heads: int) -> np.ndarray:
    """Order the rows of a head as llama.cpp does: the two channels of a rotated pair beside each other."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def straight(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undo `turned`."""
    return weight.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(checkpoint: Path, path: Path) -> dict[str, np.ndarray]:
    """Write a small Llama in Q4_1; return what its linear layers are worth, in the words of transformers."""
    described = json.loads((checkpoint / "tokenizer.json").read_text())["model"]
    tokens = sorted(described["vocab"], key=described["vocab"].get)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    writer.add_token_merges([" ".join(merge) for merge in described["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    chance = np.random.default_rng(0)
    kind, values = gguf.GGMLQuantizationType.Q4_1, {}
    for name, (theirs, rows, columns) in LAYER.items():
        weight = chance.normal(0, 0.1, (rows, columns)).astype(np.float32)
        heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(name)
        packed = gguf.quantize(weight if heads is None else turned(weight, heads), kind)
        writer.add_tensor(f"blk.0.{name}.weight", packed, raw_dtype=kind)
        unpacked = gguf.dequantize(packed, kind)
        values[f"model.layers.0.{theirs}.weight"] = unpacked if heads is None else straight(unpacked, heads)
        assert np.abs(values[f"model.layers.0.{theirs}.weight"] - weight).max() < 0.05
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(HIDDEN, np.float32))
    writer.add_tensor("token_embd.weight", chance.normal(0, 0.1, (len(tokens), HIDDEN)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def test_a_gguf_file_is_dequantised_exactly(store: AssetStore, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    values = write_gguf(checkpoint, tmp_path / "package" / "tiny.Q4_1.gguf")
    asset = pull_checkpoint(Console(quiet=True), store, name="tiny", folder=tmp_path / "package")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.path for file in asset.manifest.files}
    assert "quantization_config" not in json.loads((asset.folder / "config.json").read_text())
    found = load_file(asset.folder / "model.safetensors")
    for name, value in values.items():
        assert torch.equal(found[name], torch.from_numpy(value)), name
    words = "what the weather does, and where"
    assert Tokens.load(asset.folder).ids(words) == Tokens.load(checkpoint).ids(words)
    model = AutoModelForCausalLM.from_pretrained(asset.folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.dtype == torch.float32
