"""Attention of linear layers against torch's, and that recipes reach all of it."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
import torch
from torch import nn

from configs.load import load_config, profile_path
from configs.microvlm import MicroVlmConfig
from configs.vision_language import AdapterConfig
from models.ternary import Quantised, quantise
from models.vision_language.adapter import PrefixAdapter
from models.vision_language.cross_attention import CrossAttention


def copied(theirs: nn.MultiheadAttention) -> CrossAttention:
    """Return ours with the weights of theirs."""
    ours = CrossAttention(theirs.embed_dim, theirs.num_heads)
    weights = zip(theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3), strict=True)
    with torch.no_grad():
        for linear, (weight, bias) in zip((ours.query, ours.key, ours.value), weights, strict=True):
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
        ours.out.load_state_dict(theirs.out_proj.state_dict())
    return ours


def test_it_computes_what_torch_does():
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(24, 3, batch_first=True)
    with torch.no_grad():
        for bias in (theirs.in_proj_bias, theirs.out_proj.bias):
            bias.normal_()
    ours = copied(theirs)
    queries, context = torch.randn(2, 5, 24), torch.randn(2, 7, 24)
    read, weights = theirs(queries, context, context)
    torch.testing.assert_close(ours(queries, context), read)
    torch.testing.assert_close(ours.weights(queries, context), weights)
    ours(queries, context).square().sum().backward()
    read.square().sum().backward()
    gradients = torch.cat([linear.weight.grad for linear in (ours.query, ours.key, ours.value)])
    torch.testing.assert_close(gradients, theirs.in_proj_weight.grad)


def spread(weight: torch.Tensor) -> list[float]:
    """Return standard deviation and largest size."""
    return [float(weight.detach().std()), float(weight.detach().abs().max())]


def test_it_starts_as_torch_does():
    torch.manual_seed(0)
    ours, theirs = CrossAttention(256, 4), nn.MultiheadAttention(256, 4)
    for linear in (ours.query, ours.key, ours.value):
        assert spread(linear.weight) == pytest.approx(spread(theirs.in_proj_weight), rel=0.02)
    assert spread(ours.out.weight) == pytest.approx(spread(theirs.out_proj.weight), rel=0.02)
    assert not any(linear.bias.any() for linear in (ours.query, ours.key, ours.value, ours.out))


@pytest.mark.parametrize("profile", ["ternary", "scenes"])
def test_a_recipe_that_names_the_adapter_reaches_every_matrix_of_it(profile):
    config = load_config(MicroVlmConfig, profile_path("microvlm", profile), ["source={kind: sample, layout: cc12m}"])
    recipe = next(stage.quantise for stage in config.vlm.stages.values() if stage.quantise)
    assert any(fnmatchcase("adapter.attention.query", pattern) for pattern in recipe.int8)
    model = nn.ModuleDict({"adapter": PrefixAdapter(AdapterConfig(), 32, 16, 64, 1.0)})
    quantise(model, recipe.model_copy(update={"ternary": (), "embedding": None, "slots": (), "int8": ("adapter.*",)}))
    matrices = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Quantised)}
    exact = {name for name, p in model.named_parameters() if p.ndim == 2} - matrices
    assert exact == {"adapter.queries", "adapter.positions", "adapter.patch_positions"}
