"""Layers whose results do not depend on padding, on batch mates, or on what lies outside the domain.

Two rules make a convolutional network invariant. Every spatial convolution reads features that are zero outside the
mask, so more padding is the same as the zero padding of the convolution itself. And every norm takes its statistics
from the channels of one pixel, so neither padding nor the size of the crop shifts them: a network trained on windows
sees the same numbers on whole crops. Pooling and upsampling work on blocks that are counted from the top left corner.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel of (B, C, H, W)."""

    def __init__(self, channels: int, eps: float = 1e-4) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised map."""
        normed = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)


class Pointwise(nn.Linear):
    """A 1x1 convolution of (B, C, H, W), which on a CPU runs faster as a matrix product."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvLayer(nn.Module):
    """Masked 3x3 convolution, norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = ChannelNorm(outputs)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (B, outputs, H, W) from (B, inputs, H, W) and a (B, 1, H, W) mask of zeros and ones."""
        return F.relu(self.norm(self.convolution(x * mask)))


class ConvStage(nn.Module):
    """`depth` convolutions at one resolution; those after the first add to their input."""

    def __init__(self, inputs: int, outputs: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConvLayer(outputs if i else inputs, outputs) for i in range(depth))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (B, outputs, H, W), non-negative."""
        x = self.layers[0](x, mask)
        for layer in self.layers[1:]:
            x = x + layer(x, mask)
        return x


def coarser(x: Tensor) -> Tensor:
    """Return the maximum over blocks of 2x2 of a non-negative map; blocks over the edge count what is there."""
    return F.max_pool2d(x, 2, ceil_mode=True)


def mask_pyramid(mask: Tensor, levels: int) -> list[Tensor]:
    """Return the (B, 1, H, W) mask and its halvings: a coarse pixel is in where any of its pixels is."""
    masks = [mask]
    for _ in range(levels - 1):
        masks.append(coarser(masks[-1]))
    return masks


def stem_mask(domain: Tensor, stride: int, dtype: torch.dtype) -> Tensor:
    """Return (B, 1, H / stride, W / stride): 1 where a block of the (B, H, W) domain has any pixel."""
    mask = domain.unsqueeze(1).to(dtype)
    return F.max_pool2d(mask, stride) if stride > 1 else mask


def upsample_to(x: Tensor, like: Tensor) -> Tensor:
    """Repeat every pixel over a block of 2x2 and cut the result to the size of `like`."""
    height, width = like.shape[-2:]
    return F.interpolate(x, scale_factor=2, mode="nearest")[..., :height, :width]


class UpPath(nn.Module):
    """The decoder half of a U-Net, from the coarsest map to the finest."""

    def __init__(self, skips: tuple[int, ...], widths: tuple[int, ...], depth: int) -> None:
        """`skips`: channels of all maps, finest first; `widths`: channels of the outputs of all but the coarsest."""
        super().__init__()
        assert len(widths) == len(skips) - 1
        below = (*widths[1:], skips[-1])
        self.lift = nn.ModuleList(Pointwise(inputs, width) for inputs, width in zip(below, widths, strict=True))
        stages = (ConvStage(skip + width, width, depth) for skip, width in zip(skips, widths, strict=False))
        self.stages = nn.ModuleList(stages)

    def forward(self, maps: list[Tensor], masks: list[Tensor]) -> Tensor:
        """Return (B, widths[0], H, W) from maps and masks, finest first."""
        x = maps[-1]
        for level in reversed(range(len(self.stages))):
            lifted = upsample_to(self.lift[level](x), maps[level])
            x = self.stages[level](torch.cat([maps[level], lifted], 1), masks[level])
        return x


class TokenPlace(NamedTuple):
    """Where tokens join a pyramid of maps."""

    channels: int
    """Channels of a token."""
    level: int
    """Map that they join, 0 for the finest."""
    repeat: int
    """Pixels of that map along the side of a token."""


def place_tokens(channels: int, patch: int, stem: int, levels: int) -> TokenPlace:
    """Return the coarsest of `levels` maps, of strides stem, 2 stem, 4 stem ..., whose stride divides the patch.

    Raises ValueError where none does.
    """
    fitting = [level for level in range(levels) if patch % (stem << level) == 0]
    if not fitting:
        raise ValueError(f"patch {patch} cannot join a decoder of stride {stem}; use a patch that {stem} divides")
    return TokenPlace(channels, fitting[-1], patch // (stem << fitting[-1]))


class TokenJoin(nn.Module):
    """Adds a token grid to a map; every token counts for its block of the map."""

    def __init__(self, place: TokenPlace, width: int) -> None:
        super().__init__()
        self.repeat = place.repeat
        self.project = Pointwise(place.channels, width)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Return (B, width, H, W) from a map and (B, d, Gy, Gx); the map may be padded beyond the grid."""
        joined = F.relu(self.project(tokens))
        if self.repeat > 1:
            joined = F.interpolate(joined, scale_factor=self.repeat, mode="nearest")
        rows, columns = (x.shape[axis] - joined.shape[axis] for axis in (-2, -1))
        return x + (F.pad(joined, (0, columns, 0, rows)) if rows or columns else joined)


class DownPath(nn.Module):
    """The encoder half of a U-Net; a token grid can join one of its maps."""

    def __init__(self, widths: tuple[int, ...], depth: int, place: TokenPlace | None = None) -> None:
        super().__init__()
        stages = [ConvStage(widths[0], widths[0], max(depth - 1, 1))]
        stages += [ConvStage(fine, coarse, depth) for fine, coarse in pairwise(widths)]
        self.stages = nn.ModuleList(stages)
        self.join_level = place.level if place else None
        self.join = TokenJoin(place, widths[place.level]) if place else None

    def forward(self, x: Tensor, masks: list[Tensor], tokens: Tensor | None = None) -> list[Tensor]:
        """Return the non-negative maps of all stages, finest first; `tokens` is (B, d, Gy, Gx)."""
        maps: list[Tensor] = []
        for level, (stage, mask) in enumerate(zip(self.stages, masks, strict=True)):
            x = stage(x if level == 0 else coarser(x * masks[level - 1]), mask)
            if self.join is not None and level == self.join_level:
                assert tokens is not None
                x = self.join(x, tokens)
            maps.append(x)
        return maps
