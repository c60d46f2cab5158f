"""Layers that train quantised: what they compute, what gradient they pass, and what they replace."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from configs.quantise import QuantiseRecipe
from models.packed import pack
from models.ternary import (
    Int8Linear,
    QuantisedEmbedding,
    RowLinear,
    TernaryLinear,
    quantise,
    quantise_linears,
    set_strength,
    strength_at,
)
from tasks.training.optimiser import inner_matrices
from tests.quantise.tiny import decoder, ids, logits


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def int8_tokens(x):
    scale = np.abs(x).max(-1, keepdims=True) / 127
    return np.round(x / scale) * scale


def ternary(weight):
    """BitNet b1.58's ternary weights, as the paper writes them."""
    scale = np.abs(weight).mean()
    return np.clip(np.round(weight / scale), -1, 1) * scale


def int8_channels(weight):
    scale = np.abs(weight).max(1, keepdims=True) / 127
    return np.round(weight / scale) * scale


@pytest.mark.parametrize(("kind", "reference"), [(TernaryLinear, ternary), (Int8Linear, int8_channels)])
def test_a_layer_computes_with_quantised_weights_and_inputs(kind, reference):
    linear, x = nn.Linear(30, 7), torch.randn(2, 5, 30)
    found = kind.of(linear)(x).detach().numpy()
    weight, bias = (parameter.detach().numpy().astype(np.float64) for parameter in (linear.weight, linear.bias))
    expected = int8_tokens(x.numpy().astype(np.float64)) @ reference(weight).T + bias
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_inputs_can_stay_exact():
    linear, x = nn.Linear(30, 7), torch.randn(5, 30)
    weight = torch.from_numpy(ternary(linear.weight.detach().numpy()))
    found = TernaryLinear.of(linear, activations="none")(x)
    torch.testing.assert_close(found, F.linear(x, weight, linear.bias))


def test_the_gradient_is_that_of_plain_straight_through_with_the_scale_outside():
    linear, x = nn.Linear(30, 7), torch.randn(5, 30, requires_grad=True)
    other, y = copy.deepcopy(linear), x.detach().clone().requires_grad_()
    TernaryLinear.of(linear)(x).square().sum().backward()
    weight = other.weight + (torch.from_numpy(ternary(other.weight.detach().numpy())) - other.weight).detach()
    tokens = y + (torch.from_numpy(int8_tokens(y.detach().numpy())) - y).detach()
    F.linear(tokens, weight, other.bias).square().sum().backward()
    for ours, theirs in ((linear.weight, other.weight), (linear.bias, other.bias), (x, y)):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [TernaryLinear, Int8Linear])
def test_strength_0_is_the_exact_layer_and_half_is_between(kind):
    linear, x = nn.Linear(30, 7), torch.randn(5, 30)
    layer = kind.of(linear, activations="none")
    found = {}
    for strength in (0.0, 0.5, 1.0):
        set_strength(layer, strength)
        found[strength] = layer(x)
    torch.testing.assert_close(found[0.0], linear(x))
    torch.testing.assert_close(found[0.5], (found[0.0] + found[1.0]) / 2)
    with pytest.raises(ValueError, match="from 0 to 1"):
        set_strength(layer, 1.5)
    with pytest.raises(ValueError, match="no layer that trains quantised"):
        set_strength(linear, 1)


def test_kmeans_starts_at_the_centres_of_three_means_and_beats_absmean():
    linear = nn.Linear(64, 64)
    nn.init.normal_(linear.weight)
    weight = linear.weight.detach()
    by_mean, by_centres = (TernaryLinear.of(linear, start=start) for start in ("absmean", "kmeans"))
    centre = by_centres.scale()
    outer = weight.abs() > centre / 2
    torch.testing.assert_close(centre, weight.abs()[outer].mean(), rtol=1e-4, atol=0)

    def error(layer):
        scale = layer.scale()
        return (weight - scale * (weight / scale).round().clamp(-1, 1)).square().mean()

    assert error(by_centres) < 0.9 * error(by_mean)


@pytest.mark.parametrize("layer", [TernaryLinear.of(nn.Linear(4, 3)), Int8Linear.of(nn.Linear(4, 3))])
def test_zeros_stay_zeros(layer):
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    assert not layer(torch.randn(2, 4)).any()
    assert not layer(torch.zeros(2, 4)).any()


@pytest.mark.parametrize(("kind", "bound"), [("int8", 0.02), ("int4", 0.15), ("ternary", 0.8)])
def test_embeddings_are_near_their_rows_and_learn_where_they_were_looked_up(kind, bound):
    embedding = nn.Embedding(20, 48, padding_idx=0)
    layer = QuantisedEmbedding(embedding, kind)
    asked = torch.tensor([[3, 4], [4, 0]])
    found = layer(asked)
    assert found.shape == (2, 2, 48)
    exact = embedding.weight[asked]
    assert 0 < (found - exact)[0].norm() / exact[0].norm() < bound
    found.sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad[:, 0].tolist() == [1.0 if row == 3 else 2.0 if row == 4 else 0.0 for row in range(20)]


def test_an_int4_embedding_has_the_numbers_of_q4_0():
    """As llama.cpp's quantize_row_q4_0_ref: scale of the largest by size over -8, in float16."""
    rows = torch.randn(3, 64)
    found = QuantisedEmbedding(nn.Embedding.from_pretrained(rows, freeze=False), "int4")(torch.arange(3))
    blocks = rows.numpy().reshape(-1, 32)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
    exact = extreme / -8
    integers = np.clip(np.floor(blocks / exact + 8.5), 0, 15) - 8
    expected = (integers * exact.astype(np.float16).astype(np.float32)).reshape(3, 64)
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=2e-3)


RECIPE = QuantiseRecipe(ternary=("*_proj",), int8=("*.k_proj", "*.v_proj"), kept=("*.1.*",), embedding="int8")


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_names_decide_what_becomes_of_a_layer_and_a_tied_head_stays_tied(kind):
    model = decoder(kind)
    parameters = set(model.parameters())
    done = quantise(model, RECIPE)
    assert set(model.parameters()) == parameters
    first, second = (layer.self_attn for layer in model.model.layers)
    assert type(first.q_proj) is TernaryLinear
    assert type(first.k_proj) is Int8Linear
    assert type(second.q_proj) is nn.Linear
    assert type(model.lm_head) is RowLinear
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert (done["model.layers.0.self_attn.q_proj"], done["model.layers.0.self_attn.v_proj"]) == ("ternary", "int8")
    assert done["model.embed_tokens"] == "int8"
    assert not any(name.startswith("model.layers.1") for name in done)
    model(ids(), labels=ids()).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_slots_of_a_memory_get_8_bits_whatever_other_embeddings_get():
    model = nn.ModuleDict({"embed_tokens": nn.Embedding(6, 8), "slots": nn.Embedding(4, 8)})
    exact = model["slots"].weight.detach().clone()
    recipe = QuantiseRecipe(ternary=(), embedding="ternary", embeddings=("*",), slots=("slots",))
    assert quantise(model, recipe) == {"embed_tokens": "ternary", "slots": "int8"}
    ids = torch.arange(4)
    step = exact.abs().amax(1, keepdim=True) / 127
    assert ((model["slots"](ids) - exact).abs() <= 0.51 * step).all()
    trained = model["slots"](ids).detach()
    pack(model)
    assert torch.equal(model["slots"](ids), trained)


def test_a_tied_head_goes_with_its_embedding_alone():
    model = decoder("llama")
    done = quantise(model, QuantiseRecipe(ternary=("*",)))
    assert type(model.lm_head) is nn.Linear
    assert "lm_head" not in done
    assert len(done) == 14
    free = decoder("llama", tied=False)
    assert quantise(free, QuantiseRecipe(ternary=("*",), int8=("lm_head",)))["lm_head"] == "int8"


def test_strength_0_leaves_the_logits_of_a_whole_model():
    model = decoder("qwen2")
    before = logits(model)
    quantise(model, QuantiseRecipe(int8=("*.v_proj",), embedding="int4"))
    changed = logits(model)
    set_strength(model, 0)
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-5)
    assert (changed - before).abs().max() > 1e-3


def test_a_module_at_two_places_is_replaced_at_both():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    quantise_linears(model, QuantiseRecipe())
    assert type(model[0]) is TernaryLinear
    assert model[0] is model[2]


def test_layers_whose_weights_torch_reads_past_them_are_left_alone():
    block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
    model = nn.Sequential(nn.Linear(16, 16), nn.TransformerEncoder(block, 1, enable_nested_tensor=False))
    assert set(quantise(model, QuantiseRecipe(ternary=("*",)))) == {"0"}
    pack(model)
    x = torch.randn(2, 5, 16)
    training = model.train()(x)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), training, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_muon_moves_the_same_matrices_of_a_model_that_trains_quantised(tied):
    model = decoder("qwen2", tied)
    exact = inner_matrices(model)
    assert len(exact) > 10
    few = {"ternary": ("*q_proj", "*down_proj"), "int8": ("*k_proj",), "int4": ("*up_proj",), "embedding": "int8"}
    quantise(model, QuantiseRecipe.model_validate(few))
    assert inner_matrices(model) == exact


def test_a_pattern_without_a_match_names_candidates():
    model = decoder("llama")
    with pytest.raises(
        ValueError, match=r"ternary has the pattern \*\.qkv.*model\.layers\.0\.self_attn\.q_proj.* 8 more"
    ):
        quantise(model, QuantiseRecipe(ternary=("*.qkv",)))
    with pytest.raises(ValueError, match=r"embeddings has the pattern table.*model\.embed_tokens"):
        quantise(model, QuantiseRecipe(embedding="int8", embeddings=("table",)))
    with pytest.raises(ValueError, match="give the module that holds it"):
        quantise(nn.Linear(2, 2), QuantiseRecipe())


def test_a_recipe_tells_its_strength_and_its_entry_for_config_json():
    recipe = QuantiseRecipe(warm_up=0.5, kept=("lm_head",))
    assert [strength_at(recipe, step, 8) for step in (0, 1, 4, 8)] == [0, 0.25, 1, 1]
    assert strength_at(QuantiseRecipe(warm_up=0), 0, 8) == 1
    told = recipe.quantization_config()
    assert (told["layout"], told["modules_to_not_convert"]) == ("trits5", ["lm_head"])
    with pytest.raises(ValidationError, match="nothing would be quantised"):
        QuantiseRecipe(ternary=())


def test_training_quantised_reaches_what_rounding_a_trained_model_does_not():
    """A surface is fitted exactly, rounded to ternary afterwards, and fitted on with a rising strength."""
    x = torch.rand(256, 2) * 4 - 2
    y = (x[:, :1] * 2).sin() * x[:, 1:].cos()

    def train(model, warm_up=None, steps=200):
        optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0)
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0.02, steps)
        for step in range(steps):
            if warm_up:
                set_strength(model, strength_at(warm_up, step, steps))
            optimiser.zero_grad()
            F.mse_loss(model(x), y).backward()
            optimiser.step()
            schedule.step()

    def unexplained(model):
        with torch.no_grad():
            return (F.mse_loss(model(x), y) / y.var()).item()

    exact = nn.Sequential(nn.Linear(2, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 1))
    train(exact)
    recipe = QuantiseRecipe(ternary=("2", "4"), int8=("0",), warm_up=0.2)
    quantised = copy.deepcopy(exact)
    quantise(quantised, recipe)
    rounded = unexplained(quantised)
    train(quantised, recipe)
    assert unexplained(exact) < 0.02
    assert rounded > 0.1
    assert unexplained(quantised) < 0.03
