"""Packed layers: bytes and back, the same numbers as the layers that were trained, and nothing else in memory."""

from __future__ import annotations

import copy
import gc
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from configs.quantise import QuantiseRecipe
from models import grids
from models.packed import (
    BITS2,
    BYTES,
    LAYOUTS,
    NIBBLES,
    TRITS5,
    PackedEmbedding,
    PackedInt8Linear,
    PackedLinear,
    decode,
    decoding_table,
    encode,
    pack,
)
from models.ternary import Int8Linear, QuantisedEmbedding, TernaryLinear, quantise, set_strength
from tests.quantise.tiny import decoder, ids, logits

DIGITS = {"trits5": TRITS5, "bits2": BITS2, "int4": NIBBLES, "int8": BYTES}
RANGES = {"trits5": (-1, 1), "bits2": (-1, 1), "int4": (-8, 7), "int8": (-127, 127)}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@given(st.data(), st.sampled_from(sorted(DIGITS)), st.integers(1, 23), st.integers(1, 4))
@settings(max_examples=80, deadline=None)
def test_integers_come_back_from_bytes_for_every_remainder(data, name, columns, rows):
    digits, (lowest, highest) = DIGITS[name], RANGES[name]
    number = st.integers(lowest, highest)
    given_ = data.draw(st.lists(st.lists(number, min_size=columns, max_size=columns), min_size=rows, max_size=rows))
    codes = encode(torch.tensor(given_, dtype=torch.float32), digits)
    assert codes.dtype == torch.uint8
    assert codes.shape == (rows, -(-columns // digits.per_byte))
    assert decode(codes, digits, columns).tolist() == given_


def test_a_byte_of_five_trits_is_a_number_of_base_3():
    row = [1, -1, 0, 1, 1]
    value = sum((trit + 1) * 3**place for place, trit in enumerate(row))
    assert encode(torch.tensor([row]), TRITS5).tolist() == [[value]]
    table = decoding_table(TRITS5, torch.device("cpu"))
    assert table.shape == (243, 5)
    assert table[value].tolist() == row
    every = {tuple(int(trit) for trit in row) for row in table}
    assert every == set(itertools.product((-1, 0, 1), repeat=5))


def test_four_trits_of_two_bits_each_lie_in_a_byte_lowest_first():
    assert encode(torch.tensor([[1, -1, 0, 1]]), BITS2).tolist() == [[0b10_01_00_10]]


@given(
    st.integers(1, 40), st.integers(1, 12), st.booleans(), st.sampled_from(["int8", "none"]), st.sampled_from([1, 60])
)
@settings(max_examples=60, deadline=None)
def test_a_packed_layer_gives_the_bits_of_the_trained_one(inputs, outputs, bias, activations, block):
    linear, x = nn.Linear(inputs, outputs, bias), torch.randn(3, 2, inputs)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(grids, "BLOCK", block)
        for layout in LAYOUTS:
            trained = TernaryLinear.of(linear, activations=activations)
            same(PackedLinear.of(trained, layout)(x), trained(x), activations)
        trained = Int8Linear.of(linear, activations)
        same(PackedInt8Linear.of(trained)(x), trained(x), activations)


def same(found, expected, activations):
    exact = {} if activations == "none" else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(found, expected, **exact)


def test_sums_beyond_what_floats_hold_are_exact_to_rounding():
    """9000 inputs of int8 add up to more than 2^24; sums over 1040 of them do not, so their order alone matters."""
    linear, x = nn.Linear(9000, 40, bias=False), torch.rand(5, 9000)
    nn.init.uniform_(linear.weight, 0.5, 1)
    layer = PackedInt8Linear.of(Int8Linear.of(linear))
    token = x.amax(-1, keepdim=True) / 127
    integers, weight = (x / token).round().long(), layer.codes.long().T - 128
    parts = [integers[:, at : at + 1040] @ weight[at : at + 1040] for at in range(0, 9000, 1040)]
    assert max(part.max() for part in parts) < 2**24 < sum(parts).max()
    total = torch.zeros(5, 40)
    for part in parts:
        total += part.float()
    assert torch.equal(layer(x), total * (token * layer.scale))


@pytest.mark.parametrize("kind", ["int8", "int4", "ternary"])
@pytest.mark.parametrize("width", [32, 45, 64])
def test_a_packed_embedding_gives_the_bits_of_the_trained_one(kind, width):
    trained = QuantisedEmbedding(nn.Embedding(11, width), kind)
    asked = torch.tensor([[0, 10], [3, 3]])
    found = PackedEmbedding.of(trained)(asked)
    torch.testing.assert_close(found, trained(asked).detach(), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("embedding", ["int8", "int4", "ternary"])
def test_a_packed_decoder_has_the_logits_of_the_trained_one(kind, layout, embedding):
    model = decoder(kind)
    quantise(model, QuantiseRecipe(int8=("*.v_proj",), embedding=embedding, layout=layout))
    expected = logits(model)
    pack(model, layout)
    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-6)
    assert model.lm_head.rows is model.model.embed_tokens.rows
    with torch.no_grad():
        assert model.generate(ids(), max_new_tokens=3, do_sample=False, pad_token_id=0).shape == (2, 12)


@pytest.mark.parametrize("inputs", [32, 45])
def test_a_packed_layer_of_4_bits_gives_the_bits_of_the_trained_one_and_those_of_an_embedding(inputs, monkeypatch):
    monkeypatch.setattr(grids, "BLOCK", 100)
    model = nn.Sequential(nn.Linear(inputs, 7), nn.Linear(7, 3))
    exact = model[0].weight.detach().clone()
    assert quantise(model, QuantiseRecipe(ternary=("*",), int4=("0",))) == {"0": "int4", "1": "ternary"}
    rows = QuantisedEmbedding(nn.Embedding.from_pretrained(exact, freeze=False), "int4")(torch.arange(7)).detach()
    x = torch.randn(5, inputs)
    with torch.no_grad():
        trained = model[0](x)
    torch.testing.assert_close(trained, torch.nn.functional.linear(x, rows, model[0].bias.detach()))
    torch.testing.assert_close(model[0](x).detach(), trained)
    pack(model)
    assert torch.equal(model[0](x), trained)
    held = model[0].rows
    assert held.codes.numel() + 2 * held.scale.numel() == 7 * (-(-inputs // 2) + 2 * -(-inputs // 32))


def test_no_float_weight_is_left_behind_or_made_by_a_forward_pass(monkeypatch):
    model = nn.Sequential(nn.Linear(300, 200), nn.Linear(200, 300, bias=False))
    monkeypatch.setattr(grids, "BLOCK", 1500)
    quantise(model, QuantiseRecipe())
    pack(model)
    assert not list(model.parameters())
    model(torch.randn(3, 300))
    gc.collect()
    largest = max(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    assert largest == 200 * 60
    held = [t for t in map(safe_tensor, gc.get_objects()) if t is not None and t.shape in {(300, 200), (200, 300)}]
    assert held == []
    assert peak_elements(model, torch.randn(3, 300)) < 300 * 200 / 4


def safe_tensor(thing):
    return thing if type(thing) in (torch.Tensor, nn.Parameter) else None


def peak_elements(model, x):
    """Return the most numbers that any operation of a forward pass gives."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        most = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.most = max(self.most, out.numel())
            return out

    with Largest() as largest:
        model(x)
    return largest.most


def test_only_whole_quantised_models_are_packed():
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(ValueError, match="no layer that trains quantised"):
        pack(model)
    quantise(model, QuantiseRecipe())
    set_strength(model, 0.25)
    with pytest.raises(ValueError, match=r"strength of 0\.25"):
        pack(model)
    with pytest.raises(ValueError, match="give the module that holds it"):
        pack(TernaryLinear.of(nn.Linear(2, 2)))


def test_a_packed_layer_refuses_to_pass_a_gradient():
    layer = PackedLinear.of(TernaryLinear.of(nn.Linear(4, 4)))
    with pytest.raises(ValueError, match="pass no gradient"):
        layer(torch.randn(2, 4, requires_grad=True))


def test_a_model_without_memory_gets_the_same_form():
    recipe = QuantiseRecipe(int8=("1",), embedding="int4", embeddings=("2",), start="kmeans")
    model = nn.Sequential(nn.Linear(9, 8), nn.Linear(8, 7), nn.Embedding(5, 40))
    bare = copy.deepcopy(model).to("meta")
    for each in (model, bare):
        quantise(each, recipe)
        pack(each)
    forms = [{name: (t.shape, t.dtype) for name, t in each.state_dict().items()} for each in (model, bare)]
    assert forms[0] == forms[1]
