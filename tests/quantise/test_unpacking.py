"""Packed models for engines without torch: their integers stand for the weights that they compute with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from configs.quantise import QuantiseRecipe
from models.packed import PackedInt8Linear, PackedLinear, PackedRowLinear, pack
from models.ternary import quantise, set_strength
from tasks.quantise.decoder import Codes
from tasks.quantise.unpacking import decoder_of, unpacked

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "intermediate_size": 96, "vocab_size": 50}  # fmt: skip


def packed(model: nn.Module, **recipe) -> nn.Module:
    torch.manual_seed(0)
    quantise(model, QuantiseRecipe.model_validate({"activations": "none"} | recipe))
    set_strength(model, 1.0)
    pack(model)
    return model.eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["int8", "int4", "ternary"])
def test_the_arrays_of_a_packed_decoder_give_its_logits(tied, kind):
    torch.manual_seed(1)
    model = packed(Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=tied)), embedding=kind,
                   ternary=["model.layers.*"], int8=["*.mlp.up_proj"], int4=["*.k_proj", "*.gate_proj"])  # fmt: skip
    decoder = decoder_of(model)
    plain = Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=tied)).eval()
    values = {name: torch.from_numpy(w.values() if isinstance(w, Codes) else w) for name, w in decoder.weights.items()}
    missing, unexpected = plain.load_state_dict(values, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"] if tied else [], [])
    assert ("lm_head.weight" in decoder.weights) is not tied
    bits = {
        "up_proj": 8,
        "k_proj": 4,
        "gate_proj": 4,
        "down_proj": 1.58,
        "q_proj": 1.58,
        "embed_tokens": {"int8": 8, "int4": 4}.get(kind, 1.58),
    }
    for part, expected in bits.items():
        assert {w.bits for name, w in decoder.weights.items() if name.endswith(f"{part}.weight")} == {expected}
    ids = torch.randint(50, (2, 9))
    torch.testing.assert_close(model(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-4)


def test_an_exact_decoder_is_its_own_arrays():
    model = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False))
    decoder = decoder_of(model)
    assert decoder.weights.keys() == dict(model.named_parameters()).keys()
    np.testing.assert_array_equal(decoder.weights["lm_head.weight"], model.lm_head.weight.detach().numpy())


def test_rows_that_are_no_whole_groups_are_refused():
    model = packed(Qwen2ForCausalLM(Qwen2Config(**SIZES | {"intermediate_size": 80})), ternary=["*.q_proj"],
                   int4=["*.down_proj"])  # fmt: skip
    with pytest.raises(ValueError, match="80 columns are no whole groups of 32"):
        decoder_of(model)


def test_a_packed_module_has_a_plain_twin():
    model = packed(
        nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 30), nn.Linear(30, 10, bias=False)),
        ternary=["0"], int4=["1"], int8=["2"],
    )  # fmt: skip
    twin = unpacked(model)
    assert [type(layer) for layer in twin] == 3 * [nn.Linear]
    assert [type(layer) for layer in model] == [PackedLinear, PackedRowLinear, PackedInt8Linear]
    x = torch.randn(4, 20)
    torch.testing.assert_close(twin(x), model(x), rtol=1e-5, atol=1e-5)
