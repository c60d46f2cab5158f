"""Attention masks of decoders."""

from __future__ import annotations

import torch
from torch import Tensor


def visible_keys(attended: Tensor, causal: bool) -> Tensor:
    """Return (B, 1, S, S), true where a query sees a key: what is `attended` (B, S), if causal only up to its place.

    A padding position sees itself, as softmax over nothing is not a number.
    """
    itself = torch.eye(attended.shape[1], dtype=torch.bool, device=attended.device)
    seen = attended.bool()[:, None, None] | itself
    return seen.tril() if causal else seen
