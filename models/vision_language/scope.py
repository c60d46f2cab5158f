"""ScopeNet: whether a query is about what the memory holds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STATISTICS = 3


class ScopeNet(nn.Module):
    """An MLP that sees the query and how its reading compares with it, and gates what the memory adds.

    The query alone says what kind of question it is, not whether an episode holds the answer; a memory reads something
    for every query. What tells them apart is how much of the query the reading explains, so the MLP is also given
    their cosine, the part of the query that the reading leaves, and the logarithm of the ratio of their norms.
    """

    def __init__(self, width: int, hidden: int = 256) -> None:
        super().__init__()
        self.query, self.statistics = nn.Linear(width, hidden), nn.Linear(STATISTICS, hidden)
        self.layers = nn.Sequential(nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 1))

    def forward(self, queries: Tensor, readings: Tensor) -> Tensor:
        """Return logits (B, Q) that queries (B, Q, C) with these readings (B, Q, C) are in scope."""
        features = self.query(F.normalize(queries, dim=-1)) + self.statistics(reading_statistics(queries, readings))
        return self.layers(features)[..., 0]


def reading_statistics(queries: Tensor, readings: Tensor) -> Tensor:
    """Return cosine, |q - r| / |q| and log(|r| / |q|) of queries and readings (B, Q, C), as (B, Q, 3)."""
    size = queries.norm(dim=-1).clamp_min(1e-6)
    cosine = F.cosine_similarity(queries, readings, dim=-1)
    left = (queries - readings).norm(dim=-1) / size
    ratio = (readings.norm(dim=-1).clamp_min(1e-6) / size).log()
    return torch.stack([cosine, left, ratio], -1)
