"""Tensors that are computed once hold values, whoever asked first."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.constants import constant
from models.weather.swin3d import SwinStage


def test_it_is_made_once_for_each_set_of_arguments_and_may_carry_gradients():
    made = []

    @constant
    def steps(count: int) -> Tensor:
        made.append(count)
        return torch.arange(float(count))

    with torch.inference_mode():
        first = steps(3)
    assert steps(3) is first
    assert steps(2).tolist() == [0, 1]
    assert made == [3, 2]
    weight = torch.ones(3, requires_grad=True)
    (weight * steps(3)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [0, 1, 2]


def test_windows_are_laid_out_with_values_though_an_export_was_the_first_to_ask():
    torch.manual_seed(0)
    stage: nn.Module = SwinStage(8, 2, (2, 3, 2), 2.0, [0.0, 0.0]).eval()
    x = torch.randn(1, 3, 7, 5, 8)  # a grid that no other test has
    exported = torch.export.export(stage, (x,)).module()
    with torch.no_grad():
        found = stage(x)
        assert type(found) is Tensor, "not one of the graph's, without values"
        torch.testing.assert_close(exported(x), found)
