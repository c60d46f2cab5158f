"""The vision-to-text adapter: tokens of the encoder, pooled to M and mapped to soft prompts of a language model."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.prefixer import PrefixerConfig
from models.weather.swin3d import Grid


class Prefixer(nn.Module):
    """From (B, N, Dv) tokens on a grid to (B, M, dH) soft prompts at the scale of the language model's embeddings."""

    def __init__(self, config: PrefixerConfig, width: int, grid: Grid, language_width: int, scale: float) -> None:
        super().__init__()
        self.pool = make_pooling(config, width, grid)
        self.norm = nn.LayerNorm(width)
        self.mlp = Mlp(config, width, language_width)
        self.out_norm = nn.LayerNorm(language_width, elementwise_affine=False)
        self.scale = nn.Parameter(torch.full((language_width,), scale))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return soft prompts (B, M, dH)."""
        return self.out_norm(self.mlp(self.norm(self.pool(tokens)))) * self.scale


class Mlp(nn.Module):
    """Linear layers with SiLU or GELU between; optionally, scaled by LayerScale, beside a linear map of the input."""

    def __init__(self, config: PrefixerConfig, width: int, out: int) -> None:
        super().__init__()
        hidden = config.hidden or out
        widths = [width, *[hidden] * (config.layers - 1), out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = nn.SiLU() if config.activation == "silu" else nn.GELU()
        self.shortcut = nn.Linear(width, out) if config.residual else None
        self.layer_scale = nn.Parameter(torch.full((out,), 0.1)) if config.residual else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to (..., out)."""
        y = x
        for layer in self.layers[:-1]:
            y = self.activation(layer(y))
        y = self.layers[-1](y)
        return y if self.shortcut is None else self.shortcut(x) + self.layer_scale * y


def make_pooling(config: PrefixerConfig, width: int, grid: Grid) -> nn.Module:
    """Return the module that takes (B, N, width) to (B, M, width).

    Raises:
        ValueError: the token grid cannot be pooled to M this way.
    """
    tokens, count = config.tokens, math.prod(grid)
    config.check_width(width)
    match config.pooling:
        case "mean":
            return BlockMeans(grid, block_grid(grid, tokens))
        case "mean_global":
            return GlobalMean(width, tokens)
        case "strided":
            if tokens > count:
                raise ValueError(
                    f"prefixer.tokens is {tokens}, but the encoder gives {count} tokens; lower tokens, or pool by "
                    "attention"
                )
            return Strided(count, tokens)
        case "attention":
            return AttentionPooling(width, config.heads, tokens, count)
        case "resampler":
            return Resampler(width, config.heads, tokens, count, config.resampler_layers)


def block_grid(grid: Grid, tokens: int) -> Grid:
    """Return how many blocks along each axis make `tokens` blocks, as equally long in cells as can be.

    Raises:
        ValueError: no such blocks exist; the message names the numbers that do.
    """
    fitting = [
        (t, h, w) for t in range(1, grid[0] + 1) for h in range(1, grid[1] + 1) for w in range(1, grid[2] + 1)
        if grid[0] % t == grid[1] % h == grid[2] % w == 0
    ]  # fmt: skip
    chosen = [blocks for blocks in fitting if math.prod(blocks) == tokens]
    if not chosen:
        possible = ", ".join(map(str, sorted({math.prod(blocks) for blocks in fitting})))
        raise ValueError(
            f"prefixer.tokens is {tokens}, but the encoder's grid of {' x '.join(map(str, grid))} tokens can only be "
            f"cut into equal blocks of {possible}; choose one of these, or pool by attention"
        )

    def unevenness(blocks: Grid) -> float:
        sides = [size / count for size, count in zip(grid, blocks, strict=True)]
        return max(sides) / min(sides)

    return min(chosen, key=unevenness)


class BlockMeans(nn.Module):
    """Means of equal blocks of the token grid; no parameters."""

    def __init__(self, grid: Grid, blocks: Grid) -> None:
        super().__init__()
        self._grid, self._blocks = grid, blocks

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool (B, N, D) to (B, M, D)."""
        x = tokens
        for axis, (size, count) in enumerate(zip(self._grid, self._blocks, strict=True)):
            x = x.unflatten(1, (-1, count, size // count, math.prod(self._grid[axis + 1 :]))).mean(3).flatten(1, 3)
        return x


class GlobalMean(nn.Module):
    """One mean of all tokens, told apart by M learned offsets."""

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.offsets = nn.Parameter(torch.randn(tokens, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool (B, N, D) to (B, M, D)."""
        return tokens.mean(1, keepdim=True) + self.offsets


class Strided(nn.Module):
    """Evenly spaced tokens in the order of the grid; no parameters."""

    def __init__(self, count: int, tokens: int) -> None:
        super().__init__()
        self._chosen = [(2 * k + 1) * count // (2 * tokens) for k in range(tokens)]

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool (B, N, D) to (B, M, D)."""
        return tokens[:, self._chosen]


class Attention(nn.Module):
    """Queries that read from tokens; both are normalised first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.query_norm, self.token_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Return what queries (B, M, D) read from tokens (B, N, D)."""
        q = self.query(self.query_norm(queries))
        k, v = self.key_value(self.token_norm(tokens)).chunk(2, -1)
        q, k, v = (x.unflatten(-1, (self._heads, -1)).transpose(1, 2) for x in (q, k, v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class AttentionPooling(nn.Module):
    """M learned queries over the tokens, each of which knows its place by a learned position."""

    def __init__(self, width: int, heads: int, tokens: int, count: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(tokens, width))
        self.positions = nn.Parameter(0.02 * torch.randn(count, width))
        self.attention = Attention(width, heads)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool (B, N, D) to (B, M, D)."""
        queries = self.queries.expand(len(tokens), -1, -1)
        return queries + self.attention(queries, tokens + self.positions)


class Resampler(nn.Module):
    """M latents that, layer by layer, attend to the tokens and to each other (Perceiver, arXiv 2103.03206)."""

    def __init__(self, width: int, heads: int, tokens: int, count: int, layers: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(tokens, width))
        self.positions = nn.Parameter(0.02 * torch.randn(count, width))
        self.attentions = nn.ModuleList(Attention(width, heads) for _ in range(layers))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in range(layers)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool (B, N, D) to (B, M, D)."""
        x = self.latents.expand(len(tokens), -1, -1)
        tokens = tokens + self.positions
        for attention, mlp in zip(self.attentions, self.mlps, strict=True):
            x = x + attention(x, torch.cat([tokens, x], 1))
            x = x + mlp(x)
        return x
