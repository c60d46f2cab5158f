"""Integers that stand for weights and activations.

A value is an integer times a scale. Integers are held as floats: their products add up without rounding below 2^24, so
that a layer in training and its packed form give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from configs.quantise import RowKind

EXACT = 2**24
"""Below this, float32 holds every integer."""
BYTE = 127
"""Largest int8 of a symmetric grid."""
GROUP = 32
"""Columns of an int4 row that share a scale, as in llama.cpp's Q4_0."""
LLOYD_STEPS = 16
BLOCK = 2**18
"""Weights that are unpacked at a time."""


class Limits(NamedTuple):
    """The integers of a grid."""

    lowest: int
    highest: int


TERNARY, INT8, INT4 = Limits(-1, 1), Limits(-BYTE, BYTE), Limits(-8, 7)
ROW_LIMITS: dict[RowKind, Limits] = {"int8": INT8, "int4": INT4, "ternary": TERNARY}


def nearest(units: Tensor, limits: Limits) -> Tensor:
    """Return the integers of a grid that are nearest to values which are in units of their scale."""
    return units.round().clamp_(*limits)


def straight_through(units: Tensor, limits: Limits, strength: Tensor) -> Tensor:
    """Return values moved towards their integers, all the way at strength 1; the gradient is that of the values.

    The difference between a value and its integer is itself a float, so strength 1 gives the integers exactly.
    """
    with torch.no_grad():
        step = nearest(units, limits).sub_(units).mul_(strength)
    return units + step


def nonzero(scale: Tensor) -> Tensor:
    """Return scales that can be divided by; where all values are 0, any scale will do."""
    return scale + (scale == 0)


def absmean(weight: Tensor) -> Tensor:
    """Return the scale of a ternary matrix as BitNet b1.58 has it (arXiv 2402.17764), a scalar."""
    return weight.abs().mean()


def kmeans(weight: Tensor) -> Tensor:
    """Return c for which -c, 0 and c are the centres of the weights' 3-means; the borders are at c / 2."""
    size = weight.abs()
    centre = size.mean()
    for _ in range(LLOYD_STEPS):
        outer = (size > centre / 2).to(size.dtype)
        centre = (size * outer).sum() / outer.sum().clamp_min(1)
    return centre


def token_scale(x: Tensor) -> Tensor:
    """Return the int8 scale of each token of (..., C), as (..., 1)."""
    return nonzero(x.detach().abs().amax(-1, keepdim=True) / BYTE)


def channel_scale(weight: Tensor) -> Tensor:
    """Return the int8 scale of each output of (O, I), as (O, 1)."""
    return nonzero(weight.detach().abs().amax(1, keepdim=True) / BYTE)


def row_scale(rows: Tensor, kind: RowKind) -> Tensor:
    """Return the scales of (R, C) rows as (R, groups), in float16 as they are stored."""
    size = rows.detach().abs()
    if kind == "ternary":
        scale = size.mean(1, keepdim=True)
    elif kind == "int8":
        scale = size.amax(1, keepdim=True) / BYTE
    else:
        groups = F.pad(rows.detach(), (0, -rows.shape[1] % GROUP)).unflatten(1, (-1, GROUP))
        extreme = groups.gather(2, groups.abs().argmax(2, keepdim=True)).squeeze(2)
        scale = extreme / INT4.lowest
    return nonzero(scale.half())


def spread(scale: Tensor, columns: int) -> Tensor:
    """Return scales (R, groups) in float32 as they multiply rows of so many columns."""
    scale = scale.float()
    return scale if scale.shape[1] == 1 else scale.repeat_interleave(GROUP, 1)[:, :columns]


def product(x: Tensor, weight: Tensor, limits: Limits) -> Tensor:
    """Return x (..., I) times weight (O, I) transposed; of int8 tokens and weights of a grid, without rounding.

    Beyond 2^24 the exact sums over blocks of inputs are added up, always in the same order.
    """
    step = EXACT // (BYTE * max(map(abs, limits)))
    if x.shape[-1] <= step:
        return F.linear(x, weight)
    blocks = zip(x.split(step, -1), weight.split(step, 1), strict=True)
    return reduce(add, (F.linear(part, block) for part, block in blocks))


def scaled(total: Tensor, scale: Tensor, token: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return a layer's output from products (..., O), scales (O,) or (), scales of tokens (..., 1), and bias (O,)."""
    out = total * (scale if token is None else token * scale)
    return (out if bias is None else out + bias).to(total.dtype)


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Yield slices of rows that hold about as many numbers as are unpacked at a time."""
    step = max(1, BLOCK // columns)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def linear_by_blocks(x: Tensor, shape: tuple[int, int], take: Callable[[slice], Tensor], bias: Tensor | None) -> Tensor:
    """Return a linear layer's output (..., O) of (..., I), a block of the rows of its weight of this shape at a time.

    Products of floats are rounded as their shapes are: what shall give the same bits has to go the same way.
    """
    out = x.new_empty(*x.shape[:-1], shape[0])
    for rows in blocks(*shape):
        out[..., rows] = F.linear(x, take(rows))
    return out if bias is None else out + bias
