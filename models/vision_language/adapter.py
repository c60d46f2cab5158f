"""From the tokens of a vision tower to the prefix of a language model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from configs.vision_language import AdapterConfig
from models.vision_language.cross_attention import CrossAttention


class PrefixAdapter(nn.Module):
    """Patches to a few prefix tokens: a linear map, an MLP, learned queries that attend to the patches, positions.

    Attributes:
        tokens: K, prefix tokens of an image.
    """

    def __init__(self, config: AdapterConfig, vision_width: int, patches: int, width: int, scale: float) -> None:
        """Make an adapter whose prefix is on the `scale` of the language model's embeddings."""
        super().__init__()
        if width % config.heads:
            raise ValueError(f"adapter.heads ({config.heads}) must divide the language model's {width} channels")
        self.tokens = config.tokens_of(patches)
        self.project = nn.Linear(vision_width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.patch_norm = nn.LayerNorm(width)
        self.patch_positions = nn.Parameter(0.02 * torch.randn(1 + patches, width))
        self.queries = nn.Parameter(torch.randn(self.tokens, width) / width**0.5)
        self.attention = CrossAttention(width, config.heads)
        self.positions = nn.Parameter(0.02 * torch.randn(self.tokens, width))
        self.norm = nn.LayerNorm(width)
        self.scale = nn.Parameter(torch.tensor(scale))

    def patches(self, vision: Tensor) -> Tensor:
        """Return the tower's tokens (B, N, vision_width) in the language model's width (B, N, width)."""
        return self.patch_norm(self.mlp(self.project(vision))) + self.patch_positions

    def pool(self, patches: Tensor) -> Tensor:
        """Return normalised prefix tokens (B, K, width) of patches (B, N, width), before they are scaled."""
        queries = self.queries.expand(len(patches), -1, -1)
        return self.norm(self.attention(queries, patches) + queries + self.positions)

    def looked_at(self, patches: Tensor) -> Tensor:
        """Return how much each prefix token attends to each patch, (B, K, N), the mean over heads."""
        queries = self.queries.expand(len(patches), -1, -1)
        return self.attention.weights(queries, patches)
