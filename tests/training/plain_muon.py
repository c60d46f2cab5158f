"""Muon as the paper defines it, by singular values, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def direction(matrix: Tensor) -> Tensor:
    """Return U S V^T for a matrix U D V^T, where an odd polynomial, five times in a row, brings D near 1."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm().clamp(min=1e-7)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s) @ v


class PlainMuon(torch.optim.Optimizer):
    """Nesterov momentum of 0.95, and steps as long as AdamW's."""

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            for w in (p for p in group["params"] if p.grad is not None):
                momentum = self.state[w].get("momentum", torch.zeros_like(w.grad, dtype=torch.float64))
                self.state[w]["momentum"] = momentum = 0.95 * momentum + 0.05 * w.grad.double()
                step = 0.2 * math.sqrt(max(w.shape)) * direction(0.95 * momentum + 0.05 * w.grad.double())
                w.copy_((1 - group["lr"] * group["weight_decay"]) * w.double() - group["lr"] * step)
