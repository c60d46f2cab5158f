"""What is read of weights from their headers, and what they take at so many bits."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from configs.language import Qwen2LanguageConfig
from models.language.build import build_language_model
from storage.weights import read_tensors
from tasks.quantise.sizes import BITS, by_part, bytes_at


def test_weights_that_were_published_in_16_bits_are_computed_in_32(tmp_path):
    config = Qwen2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
                         intermediate_size=24, vocab_size=40)  # fmt: skip
    Qwen2ForCausalLM(config).bfloat16().save_pretrained(tmp_path / "published")
    model = build_language_model(Qwen2LanguageConfig(pretrained=str(tmp_path / "published")), 40)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_headers_say_what_the_library_says(tmp_path):
    tensors = {"a.weight": torch.zeros(3, 5), "b": torch.zeros(7, dtype=torch.bfloat16), "c": torch.zeros(()),
               "codes": torch.zeros(4, 2, dtype=torch.uint8)}  # fmt: skip
    save_file(tensors, tmp_path / "w.safetensors", metadata={"format": "pt"})
    found = read_tensors(tmp_path / "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        assert found.keys() == set(file.keys())
        for name in file.keys():  # noqa: SIM118
            entry = file.get_slice(name)
            assert (found[name].dtype, list(found[name].shape)) == (entry.get_dtype(), entry.get_shape())
    assert {name: (t.elements, t.size) for name, t in found.items()} == {
        "a.weight": (15, 60), "b": (7, 14), "c": (1, 4), "codes": (8, 8),
    }  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 40, (2).to_bytes(8, "little") + b"[]"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="no safetensors file"):
        read_tensors(tmp_path / "w.safetensors")


def test_bytes_at_so_many_bits():
    assert [bytes_at(1000, bits) for bits in BITS] == [4000, 2000, 1000, 500, 250, 200]
    assert (bytes_at(1, 2), bytes_at(6, 1.6), bytes_at(0, 8)) == (1, 2, 0)


def test_parts_are_what_names_begin_with_and_the_largest_is_split():
    layers = {f"model.layers.{n}.mlp.weight": 30 for n in range(4)}
    parts = by_part({"lm_head.weight": 10, "model.embed.weight": 40, "model.norm.weight": 2, **layers})
    assert parts == {"lm_head": 10, "model.embed": 40, "model.layers": 120, "model.norm": 2}
    assert by_part({"weight": 5, "bias": 1}) == {"bias": 1, "weight": 5}
    assert by_part({}) == {}
