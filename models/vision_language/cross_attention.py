"""Attention to other tokens, made of linear layers that a quantisation recipe can name."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class CrossAttention(nn.Module):
    """Multi-head attention of queries to a context.

    It starts and computes as `nn.MultiheadAttention`, whose weights lie in one parameter that is no layer.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        for linear in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(linear.weight, gain=2**-0.5)
        for linear in (self.query, self.key, self.value, self.out):
            nn.init.zeros_(linear.bias)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """Return what queries (B, K, width) read from a context (B, N, width)."""
        query, key, value = self._heads_of(queries, context)
        return self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))

    def weights(self, queries: Tensor, context: Tensor) -> Tensor:
        """Return how much each query attends to each token of the context, (B, K, N), the mean over heads."""
        query, key, _ = self._heads_of(queries, context)
        return (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1).mean(1)

    def _heads_of(self, queries: Tensor, context: Tensor) -> list[Tensor]:
        """Return query, key and value, (B, heads, tokens, width / heads)."""
        projected = (self.query(queries), self.key(context), self.value(context))
        return [x.unflatten(-1, (self._heads, -1)).transpose(1, 2) for x in projected]
