"""Masked pooling: pixels to tokens, counting valid pixels alone.

Tokens are patches of P x P pixels from the crop's upper left corner on, row by row; at the bottom and on the right they
may reach beyond the crop, and what lies there counts as not valid. Shares of a token are of P * P pixels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


def grid_of(height: int, width: int, patch: int) -> tuple[int, int]:
    """Return rows and columns of tokens that cover a crop."""
    return -(-height // patch), -(-width // patch)


def _sums(values: NDArray[Any], patch: int) -> NDArray[Any]:
    """Sum (..., H, W) over patches, to (..., Gy, Gx); slices add up several times faster than `np.add.reduceat`."""
    rows = values[..., ::patch, :].copy()
    for offset in range(1, patch):
        more = values[..., offset::patch, :]
        rows[..., : more.shape[-2], :] += more
    sums = rows[..., ::patch].astype(np.float64)
    for offset in range(1, patch):
        more = rows[..., offset::patch]
        sums[..., : more.shape[-1]] += more
    return sums


def pool_means(
    values: NDArray[np.float64], valid: NDArray[np.bool_], patch: int
) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    """Return means over valid pixels (N, C), 0 where there are none, and valid shares (N, C).

    Both arguments are (C, H, W), and values are 0 where not valid, as those of a `Landscape` are.
    """
    count = _sums(valid.view(np.uint8), patch)  # a column of a patch has at most 16 pixels
    mean = _sums(values, patch) / np.maximum(count, 1)
    return _by_token(mean).astype(np.float32), _by_token(count / patch**2).astype(np.float16)


def _by_token(pooled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reorder (C, Gy, Gx) to (N, C)."""
    return pooled.reshape(len(pooled), -1).T


@lru_cache(maxsize=64)
def token_numbers(height: int, width: int, patch: int) -> NDArray[np.int32]:
    """Return the token of every pixel, (H * W)."""
    rows = np.arange(height, dtype=np.int32) // patch
    columns = np.arange(width, dtype=np.int32) // patch
    return (rows[:, None] * np.int32(-(-width // patch)) + columns).ravel()


def pool_mask(mask: NDArray[np.bool_], patch: int) -> NDArray[np.int64]:
    """Count the pixels of a mask (H, W) per token, (N,)."""
    return _sums(mask.view(np.uint8), patch).astype(np.int64).ravel()


def pool_footprint(height: int, width: int, patch: int) -> NDArray[np.float32]:
    """Return the share of every token that lies inside the crop, (N,)."""
    rows, columns = grid_of(height, width, patch)
    inside_rows = np.minimum(patch, height - patch * np.arange(rows))
    inside_columns = np.minimum(patch, width - patch * np.arange(columns))
    return (np.outer(inside_rows, inside_columns).ravel() / patch**2).astype(np.float32)


def pool_classes(classes: NDArray[np.uint8], count: int, patch: int) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Return class histograms over valid pixels (N, K) and valid shares (N,); classes (H, W) are 1..K, 0 not valid."""
    height, width = classes.shape
    rows, columns = grid_of(height, width, patch)
    cells = token_numbers(height, width, patch) * np.int32(count + 1) + classes.ravel()
    histogram = np.bincount(cells, minlength=rows * columns * (count + 1)).reshape(-1, count + 1)[:, 1:]
    valid = histogram.sum(axis=1)
    shares = histogram / np.maximum(valid, 1)[:, None]
    return shares.astype(np.float16), (valid / patch**2).astype(np.float16)


def pool_arrival(
    arrival: NDArray[np.uint8], steps: int, domain_pixels: NDArray[np.int64], patch: int
) -> NDArray[np.float16]:
    """Return the burnt share of every token's domain pixels per frame, (T, N).

    `arrival` (H, W) is the first frame in which a pixel burns, T where none; all burnt pixels lie in the domain.
    """
    height, width = arrival.shape
    burnt = np.flatnonzero(arrival.ravel() < steps)
    cells = token_numbers(height, width, patch)[burnt] * np.int64(steps) + arrival.ravel()[burnt]
    new = np.bincount(cells, minlength=len(domain_pixels) * steps).reshape(-1, steps)
    share = new.cumsum(axis=1) / np.maximum(domain_pixels, 1)[:, None]
    return np.ascontiguousarray(share.T).astype(np.float16)
