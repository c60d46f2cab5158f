"""Files of packed weights: as small as their bytes, the same from run to run, and refused when they are not right."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from configs.quantise import QuantiseRecipe
from models.packed import pack
from models.ternary import quantise, set_strength
from storage.packed_weights import load_packed, packed_header, save_packed
from tasks.quantise.packing import pack_into, quantise_once, read_packed, without_memory
from tests.quantise.tiny import decoder, logits

RECIPE = QuantiseRecipe(embedding="int4")


def packed(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = decoder("llama")
    if seed:
        for parameter in model.parameters():
            nn.init.normal_(parameter)
    quantise(model, RECIPE)
    pack(model, RECIPE.layout)
    return model


@pytest.fixture
def saved(tmp_path):
    model = packed()
    path = tmp_path / "model.safetensors"
    save_packed(path, model.state_dict(), "trits5")
    return path, model


def rewrite(path, tensors=None, **changes):
    remark = json.loads(header(path)["packed_weights"]) | changes
    save_file(tensors or load_file(path), path, metadata={"packed_weights": json.dumps(remark)})


def header(path):
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


def test_a_file_gives_the_model_back_and_weighs_what_its_codes_do(saved):
    path, model = saved
    other = packed(seed=1)
    assert (logits(other) - logits(model)).abs().max() > 0.1
    load_packed(path, other, "trits5")
    assert torch.equal(logits(other), logits(model))
    assert packed_header(path).layout == "trits5"
    held = {t.data_ptr(): t.numel() * t.element_size() for t in model.state_dict().values()}
    assert 0 <= path.stat().st_size - sum(held.values()) < 8192
    assert "lm_head.rows.codes" in load_file(path)
    assert "model.embed_tokens.rows.codes" not in load_file(path)


def test_a_model_without_memory_is_filled_from_the_file(tmp_path):
    model = nn.Sequential(nn.Linear(9, 8), nn.LayerNorm(8), nn.Embedding(5, 8), nn.Linear(8, 5, bias=False))
    model[3].weight = model[2].weight
    recipe = QuantiseRecipe(embedding="int8", embeddings=("2",))
    bare = copy.deepcopy(model).to("meta")
    bare[3].weight = bare[2].weight
    for each in (model, bare):
        quantise(each, recipe)
        pack(each)
    save_packed(tmp_path / "m.safetensors", model.state_dict(), "trits5")
    load_packed(tmp_path / "m.safetensors", bare, "trits5")
    x = torch.randn(3, 9)
    assert torch.equal(bare[3](bare[1](bare[0](x))), model[3](model[1](model[0](x))))
    assert bare[3].rows is bare[2].rows


@pytest.mark.parametrize("tied", [True, False])
def test_a_decoder_whose_head_is_its_embedding_comes_back_from_the_file(tmp_path, tied):
    config = Qwen2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
                         intermediate_size=48, vocab_size=40, tie_word_embeddings=tied)  # fmt: skip
    recipe = QuantiseRecipe(ternary=("model.layers.*",), embedding="int8", embeddings=("model.embed_tokens",))
    torch.manual_seed(0)
    model, ids = Qwen2ForCausalLM(config).eval(), torch.arange(12)[None]
    quantise_once(model, recipe)
    set_strength(model, 1.0)
    expected = model(ids).logits
    pack_into(tmp_path / "m.safetensors", model, recipe)
    with without_memory():
        bare = Qwen2ForCausalLM(config).eval()
    read_packed(tmp_path / "m.safetensors", bare, recipe)
    with torch.no_grad():
        torch.testing.assert_close(bare(ids).logits, expected, atol=1e-4, rtol=1e-4)


def test_equal_weights_are_equal_bytes(saved):
    """Entries of a header come in random order, so several would differ in one of these."""
    path, model = saved
    first = path.read_bytes()
    for _ in range(8):
        save_packed(path, model.state_dict(), "trits5")
        assert path.read_bytes() == first


def test_another_layout_version_or_content_is_refused(saved):
    path, model = saved
    with pytest.raises(ValueError, match="has the layout trits5, and the model bits2"):
        load_packed(path, model, "bits2")
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("q_proj.codes"))
    tensors[name][0, 0] ^= 1
    rewrite(path, tensors)
    with pytest.raises(ValueError, match="not those that were written"):
        load_packed(path, model, "trits5")
    rewrite(path, version=99)
    with pytest.raises(ValueError, match=r"version 99, and version 1 can be read; quantise the model again"):
        load_packed(path, model, "trits5")


def test_files_that_hold_no_packed_weights_are_refused(saved, tmp_path):
    path, model = saved
    save_file({"a": torch.ones(1)}, tmp_path / "plain")
    with pytest.raises(ValueError, match="does not say how its weights are packed"):
        load_packed(tmp_path / "plain", model, "trits5")
    (tmp_path / "cut").write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_packed(tmp_path / "cut", model, "trits5")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_packed(tmp_path / "absent", model, "trits5")
    with pytest.raises(ValueError, match="does not fit the model"):
        load_packed(path, nn.Sequential(nn.Linear(2, 2)), "trits5")
