"""What every fire model returns, and the rule that keeps it possible: fire never un-burns, and stays in the domain."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.fire.batch import FireBatch

BURNT_LOGIT = 10.0
"""Logit of pixels that burn in the last frame; its negative is the logit outside the domain."""


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
