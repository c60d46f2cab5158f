"""The last step of every pixel model: from pixel features to logits."""

from __future__ import annotations

from torch import Tensor, nn

from configs.fire_models import Head
from models.fire.batch import FireBatch
from models.fire.masked_layers import Pointwise
from models.fire.output import monotone

GROWTH_PRIOR = -3.0
"""Logit of an unburnt pixel before anything is learned: growth is rare."""


class ResidualHead(nn.Module):
    """A logit per pixel that decides what is open: the last frame and the domain decide the rest."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.residual = Pointwise(features, 1)
        nn.init.constant_(self.residual.bias, GROWTH_PRIOR)

    def forward(self, features: Tensor, batch: FireBatch) -> Tensor:
        """Return (B, H, W) logits from (B, F, H, W) features."""
        return monotone(self.residual(features).squeeze(1), batch)


def build_head(kind: Head, features: int) -> nn.Module:
    """Return a module that maps (B, F, H, W) features and the batch to (B, H, W) logits."""
    if kind == "residual":
        return ResidualHead(features)
    from models.fire.spread_front import SpreadFront

    return SpreadFront(features=features)
