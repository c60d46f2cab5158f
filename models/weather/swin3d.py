"""Building blocks of a 3D Swin Transformer (arXiv 2106.13230) that work on a token grid of any size.

On grids that the attention window divides, or whose time axis alone is smaller than the window, a block computes what
Video Swin computes. It differs on purpose elsewhere:

- tokens that only pad the grid to whole windows are never attended to; in Video Swin they take part as keys;
- a window that is cut down to a small grid in latitude or longitude keeps the relative position bias of the true
  offsets; Video Swin takes the first rows of its index, which belong to other offsets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.constants import constant

Grid = tuple[int, int, int]


def as_grid(sizes: Iterable[int]) -> Grid:
    """Return exactly three sizes: time, latitude, longitude."""
    time, row, column = sizes
    return time, row, column


@dataclass(frozen=True, eq=False)
class WindowLayout:
    """How a token grid is padded, shifted and cut into attention windows of N tokens."""

    grid: Grid
    """Tokens along time, latitude and longitude."""
    window: Grid
    """Tokens of a window, at most the grid's."""
    shift: Grid
    """Tokens by which the windows are shifted; 0 along axes that one window covers."""
    offsets: Tensor
    """Row of the relative position bias for each query and key of a window (N, N)."""
    allowed: Tensor | None
    """Which keys a query attends to (windows, N, N); None: to all of its window."""

    @classmethod
    def of(cls, grid: Grid, window: Grid, shifted: bool, device: torch.device) -> WindowLayout:
        """Lay windows over a grid, `shifted` by half a window where the grid is larger than one."""
        axes = list(zip(grid, window, strict=True))
        shift = as_grid(part // 2 if shifted and size > part else 0 for size, part in axes)
        fitted = as_grid(min(size, part) for size, part in axes)
        layout = cls(grid, fitted, shift, _offsets(fitted, window, device), None)
        if not any(shift) and layout.padded == grid:
            return layout
        group = layout._cut(layout._groups(device)).squeeze(-1).squeeze(0)
        return replace(layout, allowed=group[:, :, None] == group[:, None])

    @property
    def padded(self) -> Grid:
        """The grid with as many tokens as whole windows need."""
        return as_grid(-(-size // window) * window for size, window in zip(self.grid, self.window, strict=True))

    def partition(self, x: Tensor) -> Tensor:
        """Return windows (B, windows, N, C) of (B, T, H, W, C): first padded, then shifted."""
        (time, row, column), (t, h, w) = self.padded, self.grid
        return self._cut(F.pad(x, (0, 0, 0, column - w, 0, row - h, 0, time - t)))

    def join(self, windows: Tensor) -> Tensor:
        """Return (B, T, H, W, C) of windows (B, windows, N, C)."""
        counts = [size // window for size, window in zip(self.padded, self.window, strict=True)]
        x = windows.reshape(len(windows), *counts, *self.window, -1).permute(0, 1, 4, 2, 5, 3, 6, 7)
        x = x.reshape(len(windows), *self.padded, -1)
        if any(self.shift):
            x = x.roll(self.shift, (1, 2, 3))
        time, row, column = self.grid
        return x[:, :time, :row, :column]

    def _cut(self, x: Tensor) -> Tensor:
        if any(self.shift):
            x = x.roll([-size for size in self.shift], (1, 2, 3))
        for axis, window in zip((1, 3, 5), self.window, strict=True):
            x = x.unflatten(axis, (-1, window))
        return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6).flatten(1, 3)

    def _groups(self, device: torch.device) -> Tensor:
        """Return (1, T, H, W, 1) of the padded grid: which tokens of a window are neighbours, and which are padding."""
        group = torch.zeros(self.padded, dtype=torch.long, device=device)
        padding = torch.zeros(self.padded, dtype=torch.bool, device=device)
        for axis, (size, shift) in enumerate(zip(self.grid, self.shift, strict=True)):
            place = torch.arange(self.padded[axis], device=device).view([-1 if i == axis else 1 for i in range(3)])
            group = group + (place < shift) * 2**axis
            padding = padding | (place >= size)
        return group.masked_fill(padding, 8)[None, ..., None]


def _offsets(window: Grid, table: Grid, device: torch.device) -> Tensor:
    """Return (N, N): row of a bias table for windows of size `table`, from the offset of a query from a key."""
    axes = torch.meshgrid([torch.arange(size, device=device) for size in window], indexing="ij")
    index = torch.zeros(math.prod(window), math.prod(window), dtype=torch.long, device=device)
    for axis, size in zip(axes, table, strict=True):
        place = axis.flatten()
        index = index * (2 * size - 1) + place[:, None] - place + size - 1
    return index


@constant
def _layouts(grid: Grid, window: Grid, device: torch.device) -> tuple[WindowLayout, WindowLayout]:
    """Return the plain and the shifted layout; they are computed once, for they depend on nothing else."""
    return WindowLayout.of(grid, window, False, device), WindowLayout.of(grid, window, True, device)


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with a learned bias for each relative position."""

    def __init__(self, width: int, heads: int, window: Grid) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.position_bias = nn.Parameter(torch.empty(math.prod(2 * size - 1 for size in window), heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)

    def forward(self, x: Tensor, layout: WindowLayout) -> Tensor:
        """Return (B, T, H, W, C) of the same."""
        projected = self.query_key_value(layout.partition(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = projected.permute(3, 0, 1, 4, 2, 5)
        bias = self.position_bias[layout.offsets].permute(2, 0, 1).contiguous()
        if layout.allowed is None:
            folded = (0, 1)  # the batch is B * windows, and all windows have the same bias
        else:
            folded = (1, 2)  # the batch is B, and every window has its own bias for each head
            bias = torch.where(layout.allowed[:, None], bias, -torch.inf).flatten(0, 1)
        mixed = F.scaled_dot_product_attention(
            query.flatten(*folded), key.flatten(*folded), value.flatten(*folded), bias[None].to(query.dtype)
        )
        return self.merge(layout.join(mixed.reshape(query.shape).transpose(2, 3).flatten(3)))


class DropPath(nn.Module):
    """Skip a residual branch at random, for each sample on its own (stochastic depth, arXiv 1603.09382)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (B, ...) with the samples that are kept scaled up, and zeros for the others."""
        if not self.training or not self.rate:
            return x
        keep = torch.empty(len(x), *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device).bernoulli_(1 - self.rate)
        return x * keep / (1 - self.rate)


class SwinBlock(nn.Module):
    """Pre-norm window attention and MLP."""

    def __init__(self, width: int, heads: int, window: Grid, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm = nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, window)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, layout: WindowLayout) -> Tensor:
        """Return (B, T, H, W, C) of the same."""
        x = x + self.drop_path(self.attention(self.norm(x), layout))
        return x + self.drop_path(self.mlp(x))


class SwinStage(nn.Module):
    """Blocks on one token grid; the windows of every second one are shifted."""

    def __init__(self, width: int, heads: int, window: Grid, mlp_ratio: float, drop_path: Sequence[float]) -> None:
        super().__init__()
        self.window = window
        self.blocks = nn.ModuleList(SwinBlock(width, heads, window, mlp_ratio, rate) for rate in drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, H, W, C) of the same."""
        layouts = _layouts(as_grid(x.shape[1:4]), self.window, x.device)
        for number, block in enumerate(self.blocks):
            x = block(x, layouts[number % 2])
        return x


class PatchEmbed3D(nn.Module):
    """One token for each patch: a convolution whose kernel is its stride, and a norm."""

    def __init__(self, channels: int, width: int, patch: Grid) -> None:
        super().__init__()
        self.projection = nn.Conv3d(channels, width, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(width)

    def forward(self, data: Tensor) -> Tensor:
        """Return tokens (B, T', H', W', width) of (B, C, T, H, W), whose sizes are multiples of the patch."""
        return self.norm(self.projection(data).permute(0, 2, 3, 4, 1))


class PatchMerging3D(nn.Module):
    """Make one token of twice the width out of `merge` neighbours; odd grids are padded with zeros."""

    def __init__(self, width: int, merge: Grid) -> None:
        super().__init__()
        self.merge = merge
        merged = width * math.prod(merge)
        self.norm = nn.LayerNorm(merged)
        self.reduction = nn.Linear(merged, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T', H', W', 2 C) of (B, T, H, W, C), each size divided by that of `merge` and rounded up."""
        time, row, column = (-size % step for size, step in zip(x.shape[1:4], self.merge, strict=True))
        x = F.pad(x, (0, 0, 0, column, 0, row, 0, time))
        for axis, step in zip((1, 3, 5), self.merge, strict=True):
            x = x.unflatten(axis, (-1, step))
        return self.reduction(self.norm(x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4)))


def sincos_position(grid: Grid, width: int) -> Tensor:
    """Return (T, H, W, width): sines and cosines of the place along each axis, a third of the channels for each.

    Channels beyond a multiple of 6 stay zero.
    """
    pairs = width // 6
    rates = 10000 ** -(torch.arange(pairs) / pairs)
    parts = []
    for axis, size in enumerate(grid):
        phase = torch.arange(size)[:, None] * rates
        shape = [size if i == axis else 1 for i in range(3)]
        parts.append(torch.cat([phase.sin(), phase.cos()], -1).view(*shape, -1).expand(*grid, -1))
    return F.pad(torch.cat(parts, -1), (0, width - 6 * pairs))
