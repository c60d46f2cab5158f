"""Intervals of differences between two models on the same samples, by the paired bootstrap (Koehn 2004)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.fire.bootstrap import Estimate, Resampled, Resamples


@dataclass(frozen=True, slots=True)
class Sums:
    """What a ratio such as nats per token is made of; (samples,) each.

    Samples are drawn as wholes: add up beforehand what is not independent, such as the captions of one day.
    """

    sums: NDArray[np.float64]
    """E.g. the negative log-likelihood of each sample, nats."""
    weights: NDArray[np.float64]
    """E.g. its number of tokens."""

    def __post_init__(self) -> None:
        if self.sums.ndim != 1 or self.sums.shape != self.weights.shape or not len(self.sums):
            raise ValueError(
                f"sums and weights must be two lists of the same length, not {self.sums.shape} and {self.weights.shape}"
            )


def paired_bootstrap(a: Sums, b: Sums, samples: int = 2000, seed: int = 0) -> Estimate:
    """Return the ratio of sums of `a` less that of `b`, with the 95 % interval; the same seed gives the same numbers.

    Holds 8 bytes for each sample of each resample.

    Raises:
        ValueError: `a` and `b` are not of the same samples.
    """
    if len(a.sums) != len(b.sums):
        raise ValueError(f"{len(a.sums)} samples cannot be paired with {len(b.sums)}; score both on the same ones")
    drawn = Resamples.draw(np.arange(len(a.sums)), samples, seed).weights
    return (_resampled(a, drawn) - _resampled(b, drawn)).estimate()


def _resampled(ratio: Sums, drawn: NDArray[np.int64]) -> Resampled:
    with np.errstate(invalid="ignore", divide="ignore"):
        return Resampled(float(ratio.sums.sum() / ratio.weights.sum()), (drawn @ ratio.sums) / (drawn @ ratio.weights))
