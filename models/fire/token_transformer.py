"""Embeds what each patch went through, and attends over its time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.fire.batch import FireBatch
from models.reads import reads_are_free


class TokenEmbedder(nn.Module):
    """Token of patch n at time t = fire share + wind + position + static terrain, each embedded (M, T, d)."""

    def __init__(self, static: int, d_model: int, max_history: int) -> None:
        super().__init__()
        self.fire = nn.Linear(1, d_model)
        self.wind = nn.Sequential(nn.Linear(4, d_model), nn.GELU(), nn.Linear(d_model, d_model))
        self.static = nn.Linear(static, d_model, bias=False) if static else None
        self.position = nn.Embedding(max_history, d_model)
        nn.init.normal_(self.position.weight, std=0.2)

    def forward(self, batch: FireBatch, sample: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """Embed M tokens, named by their `sample` and `token` numbers (M,).

        Returns (M, T, d), zero where a frame does not exist, and its validity (M, T); T is `max_history` at most and
        position 0 is the last frame.
        """
        frames = min(batch.time_valid.shape[1], self.position.num_embeddings)
        real = batch.token_valid[sample, token, None]
        valid = batch.time_valid[:, -frames:][sample]
        fire = batch.fire[:, -frames:].transpose(1, 2)[sample, token].masked_fill(~(valid & real), 0.0)
        position = self.position.weight[:frames].flip(0)
        shared = self.wind(self._wind(batch, frames)) + position
        x = self.fire(fire.unsqueeze(-1)) + shared[sample]
        if self.static is not None:
            x = x + self.static(batch.static[sample, token].masked_fill(~real, 0.0)).unsqueeze(1)
        return x.masked_fill(~valid.unsqueeze(-1), 0.0), valid

    @staticmethod
    def _wind(batch: FireBatch, frames: int) -> Tensor:
        known = (batch.wind_valid & batch.time_valid)[:, -frames:, None]
        return torch.cat([batch.wind[:, -frames:].masked_fill(~known, 0.0), known.to(batch.wind.dtype)], -1)


class AttentionLayer(nn.Module):
    """Pre-norm multi-head attention and feed-forward (arXiv 2002.04745)."""

    def __init__(self, d_model: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.norm = nn.LayerNorm(d_model)
        self.query = nn.Linear(d_model, d_model)
        self.key_value = nn.Linear(d_model, 2 * d_model)
        self.merge = nn.Linear(d_model, d_model)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(d_model),
            nn.Linear(d_model, feedforward * d_model),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(feedforward * d_model, d_model),
        )

    def forward(
        self, x: Tensor, mask: Tensor | None, last_only: bool = False, position: Tensor | None = None
    ) -> Tensor:
        """Return (M, T, d), or (M, 1, d) with `last_only`.

        `mask` (M, T) names the keys that exist, at least one each, and all when None; `position` is added to queries
        and keys.
        """
        normed = self.norm(x)
        query, key, value = self._project(normed, normed if position is None else normed + position, last_only)
        keys = None if mask is None else mask[:, None, None]
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, keys, dropout).transpose(1, 2).flatten(2)
        x = (x[:, -1:] if last_only else x) + F.dropout(self.merge(mixed), self.dropout, self.training)
        return x + F.dropout(self.feedforward(x), self.dropout, self.training)

    def weights_of_last(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (M, heads, T): how the last position attends to all; rows add up to 1."""
        normed = self.norm(x)
        query, key, _ = self._project(normed, normed, last_only=True)
        scores = (query @ key.transpose(-1, -2)).squeeze(2).float() / query.shape[-1] ** 0.5
        return scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)

    def _project(self, normed: Tensor, placed: Tensor, last_only: bool) -> tuple[Tensor, Tensor, Tensor]:
        weight_key, weight_value = self.key_value.weight.chunk(2)
        bias_key, bias_value = self.key_value.bias.chunk(2)
        query = self.query(placed[:, -1:] if last_only else placed)
        if placed is normed:
            key, value = self.key_value(normed).chunk(2, -1)
        else:
            key, value = F.linear(placed, weight_key, bias_key), F.linear(normed, weight_value, bias_value)
        return self._split(query), self._split(key), self._split(value)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class TemporalTransformer(nn.Module):
    """Attention over the history of each patch; returns the state of its last frame."""

    def __init__(self, d_model: int, heads: int, layers: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(AttentionLayer(d_model, heads, feedforward, dropout) for _ in range(layers))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return (M, d) from (M, T, d); `valid` (M, T) is always true in the last column."""
        mask = None if reads_are_free(valid) and valid.all() else valid
        for layer in self.layers[:-1]:
            x = layer(x, mask)
        return self.layers[-1](x, mask, last_only=True).squeeze(1)

    def attention(self, x: Tensor, valid: Tensor) -> list[Tensor]:
        """Return per layer (M, heads, T): how the last frame attends to the history."""
        weights = []
        for layer in self.layers:
            assert isinstance(layer, AttentionLayer)
            weights.append(layer.weights_of_last(x, valid))
            x = layer(x, valid)
        return weights


class SpatialTransformer(nn.Module):
    """Attention across the valid tokens of each sample."""

    def __init__(self, d_model: int, heads: int, layers: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(AttentionLayer(d_model, heads, feedforward, dropout) for _ in range(layers))

    def forward(self, x: Tensor, valid: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return (B, N, d) from (B, N, d) and a (B, N) mask with at least one valid token each."""
        position = grid_position(grid, x.shape[-1], x.device).to(x.dtype)
        for layer in self.layers:
            x = layer(x, valid, position=position)
        return x


def grid_position(grid: tuple[int, int], channels: int, device: torch.device) -> Tensor:
    """Return (N, channels): sines and cosines of row and column, counted from the top left corner."""
    rates = torch.logspace(0, -2, channels // 4, device=device)
    row, column = (torch.arange(size, device=device)[:, None].mul(rates) for size in grid)
    rows = torch.cat([row.sin(), row.cos()], -1)[:, None].expand(*grid, -1)
    columns = torch.cat([column.sin(), column.cos()], -1)[None].expand(*grid, -1)
    return torch.cat([rows, columns], -1).flatten(0, 1)
