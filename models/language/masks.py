"""Attention masks of decoders."""

from __future__ import annotations

import torch
from torch import Tensor


def visible_keys(attended: Tensor, causal: bool) -> Tensor:
    """Return (B, 1, S, S), true where a query sees a key: what is `attended` (B, S), if causal only up to its place.

    A padding position sees itself, as softmax over nothing is not a number. A mask (B, S, S) says all of that already.
    """
    if attended.dim() == 3:
        return attended[:, None]
    itself = torch.eye(attended.shape[1], dtype=torch.bool, device=attended.device)
    seen = attended.bool()[:, None, None] | itself
    return seen.tril() if causal else seen


def shared_beginning(there: Tensor, shared: int, each: int) -> tuple[Tensor, Tensor]:
    """Return the mask (B, S, S) and the places (S,) of sequences that share their first `shared` tokens.

    What follows are continuations of `each` tokens, one behind another, of which none sees another; `there` (B, S) is
    true at tokens. Every continuation is read as if it alone came after the beginning.
    """
    tokens = torch.arange(there.shape[1], device=there.device)
    which = torch.where(tokens < shared, -1, (tokens - shared) // each)
    places = torch.where(tokens < shared, tokens, shared + (tokens - shared) % each)
    same = (which == -1) | (which == which[:, None])
    itself = tokens == tokens[:, None]
    return (there[:, None] & same & (places <= places[:, None])) | itself, places
