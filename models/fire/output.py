"""What every fire model returns, and the rule that keeps it possible: fire never un-burns, and stays in the domain."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from configs.fire_models import Head
from models.fire.batch import FireBatch
from models.fire.masked_layers import Pointwise

BURNT_LOGIT = 10.0
"""Logit of pixels that burn in the last frame; its negative is the logit outside the domain."""

GROWTH_PRIOR = -3.0
"""Logit of an unburnt pixel before anything is learned: growth is rare."""


@dataclass
class FireOutput:
    """Logits for "burnt in the next frame"."""

    logits: Tensor
    """(B, H, W) float32, finite: `BURNT_LOGIT` where the last frame burns, -`BURNT_LOGIT` outside the domain."""
    auxiliary: dict[str, Tensor] = field(default_factory=dict)
    """Further outputs that have a loss of their own: `edge`, (B, H, W) logits for "perimeter of the next frame"."""


def monotone(logits: Tensor, batch: FireBatch) -> Tensor:
    """Return (B, H, W) logits with the last frame's pixels burnt and everything outside the domain unburnt."""
    logits = logits.float().masked_fill(batch.burnt, BURNT_LOGIT)
    return logits.masked_fill(~batch.domain, -BURNT_LOGIT)


def known(batch: FireBatch) -> Tensor:
    """Return (B, H, W) bool: pixels whose next state no model decides, because they burn or lie outside the domain."""
    return torch.logical_or(batch.burnt, ~batch.domain)


class ResidualHead(nn.Module):
    """A logit per pixel that decides what is open: the last frame and the domain decide the rest."""

    def __init__(self, kind: Head, features: int) -> None:
        super().__init__()
        self.residual = Pointwise(features, 1)
        nn.init.constant_(self.residual.bias, GROWTH_PRIOR)

    def forward(self, features: Tensor, batch: FireBatch) -> Tensor:
        """Return (B, H, W) logits from (B, F, H, W) features."""
        return monotone(self.residual(features).squeeze(1), batch)
