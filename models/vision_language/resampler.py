"""From the many tokens of a vision tower to a few of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from configs.alignment import PerceiverConfig, PooledConfig
from models.vision_language.cross_attention import CrossAttention


class CrossLayer(nn.Module):
    """Latents that attend to an image and to themselves, and a feed-forward layer (Flamingo, arXiv 2204.14198)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.context_norm, self.latent_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = CrossAttention(width, heads)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, latents: Tensor, context: Tensor) -> Tensor:
        """Return latents (B, K, width) that have seen the context (B, N, width)."""
        queries = self.latent_norm(latents)
        keys = torch.cat([self.context_norm(context), queries], 1)
        latents = latents + self.attention(queries, keys)
        return latents + self.mlp(latents)


class Perceiver(nn.Module):
    """A Perceiver resampler."""

    def __init__(self, config: PerceiverConfig, vision_width: int) -> None:
        super().__init__()
        self.tokens, self.width = config.tokens, config.width
        self.project = nn.Linear(vision_width, config.width)
        self.latents = nn.Parameter(torch.randn(config.tokens, config.width) * config.width**-0.5)
        self.layers = nn.ModuleList(CrossLayer(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, vision: Tensor) -> Tensor:
        """Return latents (B, tokens, width) of the tower's tokens (B, N, vision_width)."""
        context, latents = self.project(vision), self.latents.expand(len(vision), -1, -1)
        for layer in self.layers:
            latents = layer(latents, context)
        return self.norm(latents)


class Pooled(nn.Module):
    """The baseline: an MLP on every token, and learned queries that attend to them once."""

    def __init__(self, config: PooledConfig, vision_width: int) -> None:
        super().__init__()
        self.tokens, self.width = config.tokens, config.width
        self.mlp = nn.Sequential(
            nn.Linear(vision_width, config.width), nn.GELU(), nn.Linear(config.width, config.width)
        )
        self.queries = nn.Parameter(torch.randn(config.tokens, config.width) * config.width**-0.5)
        self.attention = CrossAttention(config.width, config.heads)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, vision: Tensor) -> Tensor:
        """Return tokens (B, tokens, width) of the tower's tokens (B, N, vision_width)."""
        seen, queries = self.mlp(vision), self.queries.expand(len(vision), -1, -1)
        return self.norm(queries + self.attention(queries, seen))
