"""Muon (arXiv 2502.16982), which moves a matrix along all its directions alike, at AdamW's size of step.

It is `torch.optim.Muon` but for one thing: that iterates in bfloat16 everywhere, and most CPUs have no units for it. On
a CPU this one iterates in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
POLYNOMIAL = (3.4445, -4.7750, 2.0315)
"""Coefficients of x, x^3 and x^5; five times in a row they bring every singular value near 1."""
ITERATIONS = 5
SMALLEST = 1e-7
"""Norm below which a matrix is not brought to length one."""


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum over groups of matrices."""

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        """Take groups with `params`, all matrices, and `weight_decay`; the rate of each is set before a step."""
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                momentum = self.state[weight]["momentum_buffer"].lerp_(weight.grad, 1 - MOMENTUM)
                direction = orthogonal(weight.grad.lerp(momentum, MOMENTUM))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(direction, alpha=-group["lr"] * 0.2 * math.sqrt(max(weight.shape)))


def orthogonal(matrix: Tensor) -> Tensor:
    """Return U S V^T for a matrix U D V^T, with S near 1 (Newton-Schulz)."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide.bfloat16() if wide.is_cuda else wide.float()
    x = x / x.norm().clamp(min=SMALLEST)
    linear, cubic, quintic = POLYNOMIAL
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=cubic, alpha=quintic), x, beta=linear)
    return x if wide is matrix else x.T
