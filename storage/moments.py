"""Moments of fields: count, mean, sum of squared deviations, minimum and maximum of what is not NaN.

A moment array is float64 with these five in its last axis. Where the count is 0, the other four are 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

COUNT, MEAN, M2, MINIMUM, MAXIMUM = range(5)


@np.errstate(invalid="ignore")
def moments(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the moments over the last axis; `(..., n) => (..., 5)`. With infinite values they are not finite."""
    minimum = values.min(axis=-1)
    if np.isnan(minimum).any():
        return _moments_without_nan(values)
    out = np.empty((*values.shape[:-1], 5))
    deviation = values.astype(np.float64)
    mean = deviation.mean(axis=-1)
    deviation -= mean[..., None]
    out[..., COUNT] = values.shape[-1]
    out[..., MEAN] = mean
    out[..., M2] = np.vecdot(deviation, deviation)
    out[..., MINIMUM] = minimum
    out[..., MAXIMUM] = values.max(axis=-1)
    return out


def _moments_without_nan(values: NDArray[np.float32]) -> NDArray[np.float64]:
    out = np.empty((*values.shape[:-1], 5))
    present = values == values
    count = present.sum(axis=-1)
    deviation = np.where(present, values, 0).astype(np.float64)
    mean = deviation.sum(axis=-1) / np.maximum(count, 1)
    deviation -= mean[..., None]
    deviation *= present
    out[..., COUNT] = count
    out[..., MEAN] = mean
    out[..., M2] = np.vecdot(deviation, deviation)
    out[..., MINIMUM] = np.where(present, values, np.inf).min(axis=-1)
    out[..., MAXIMUM] = np.where(present, values, -np.inf).max(axis=-1)
    out[count == 0] = 0
    return out


@np.errstate(invalid="ignore")
def merge_moments(parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the moments of the union of parts along the first axis (Chan et al.); `(k, ..., 5) => (..., 5)`."""
    count = parts[..., COUNT]
    total = count.sum(axis=0)
    mean = (count * parts[..., MEAN]).sum(axis=0) / np.maximum(total, 1)
    out = np.empty(parts.shape[1:])
    out[..., COUNT] = total
    out[..., MEAN] = mean
    out[..., M2] = parts[..., M2].sum(axis=0) + (count * (parts[..., MEAN] - mean) ** 2).sum(axis=0)
    present = count > 0
    out[..., MINIMUM] = np.where(present, parts[..., MINIMUM], np.inf).min(axis=0, initial=np.inf)
    out[..., MAXIMUM] = np.where(present, parts[..., MAXIMUM], -np.inf).max(axis=0, initial=-np.inf)
    out[total == 0] = 0
    return out
