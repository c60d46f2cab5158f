"""The adapter: pooling to M tokens, and the scale of soft prompts."""

from __future__ import annotations

import pytest
import torch

from configs.prefixer import PrefixerConfig
from models.weather.prefixer import BlockMeans, Prefixer, block_grid

GRID = (2, 4, 6)
COUNT, WIDTH, OUT = 48, 16, 24


def make(**settings):
    torch.manual_seed(0)
    return Prefixer(PrefixerConfig(heads=4, **settings), WIDTH, GRID, OUT, scale=0.3)


@pytest.mark.parametrize("pooling", ["mean", "mean_global", "attention", "strided", "resampler"])
@pytest.mark.parametrize("tokens", [8, 16])
def test_every_pooling_gives_m_prompts_at_the_scale_of_the_embeddings(pooling, tokens):
    prompts = make(pooling=pooling, tokens=tokens)(torch.randn(3, COUNT, WIDTH))
    assert prompts.shape == (3, tokens, OUT)
    torch.testing.assert_close(prompts.square().mean().sqrt(), torch.tensor(0.3), rtol=1e-2, atol=0)
    assert not torch.allclose(prompts[:, 0], prompts[:, 1])


@pytest.mark.parametrize("activation", ["silu", "gelu"])
@pytest.mark.parametrize("residual", [False, True])
def test_every_parameter_is_reached_by_a_gradient(activation, residual):
    adapter = make(activation=activation, residual=residual, layers=3)
    (adapter(torch.randn(2, COUNT, WIDTH)) * torch.randn(2, 32, OUT)).sum().backward()
    assert [name for name, p in adapter.named_parameters() if p.grad is None] == []


def test_block_means_are_those_of_equal_boxes_of_the_grid():
    tokens = torch.randn(2, COUNT, WIDTH)
    found = BlockMeans(GRID, (1, 2, 3))(tokens)
    boxes = tokens.view(2, 2, 4, 6, WIDTH)
    expected = [boxes[:, :, i : i + 2, j : j + 2].mean((1, 2, 3)) for i in (0, 2) for j in (0, 2, 4)]
    torch.testing.assert_close(found, torch.stack(expected, 1))


def test_a_number_of_blocks_that_does_not_fit_the_grid_names_those_that_do():
    with pytest.raises(ValueError, match="equal blocks of 1, 2, 3, 4, 6, 8, 12, 16, 24, 48"):
        block_grid(GRID, 7)


def test_more_strided_tokens_than_there_are_is_refused():
    with pytest.raises(ValueError, match="lower tokens"):
        make(pooling="strided", tokens=64)
