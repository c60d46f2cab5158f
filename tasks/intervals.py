"""Intervals by resampling: what is not independent is drawn as a whole; differences are paired (Koehn 2004)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SPELL = np.timedelta64(10, "D")
"""What a high or low seldom outlives."""


@dataclass(frozen=True)
class Estimate:
    """A score with its 95 % bootstrap interval; NaN where undefined."""

    value: float
    low: float
    high: float

    def json(self) -> dict[str, float | None]:
        """Return plain numbers, None where undefined."""
        return {name: None if np.isnan(v) else float(v) for name, v in vars(self).items()}


@dataclass(frozen=True)
class Resampled:
    """A score and what it becomes in each of R resamples."""

    value: float
    replicates: Floats
    """(R,)"""

    @classmethod
    def mean(cls, runs: Sequence[Resampled], drawn: Ints | None = None) -> Self:
        """Return the mean over S runs; all come from the same resamples.

        `drawn`, (R, S), says how often each run counts in a resample, where runs are a sample as well; rows sum to S.
        Without it each counts once, and the interval does not know that other runs would have ended elsewhere.
        """
        replicates = np.stack([run.replicates for run in runs], axis=1)
        if drawn is not None:
            replicates = np.where(drawn > 0, drawn * replicates, 0.0)
        return cls(float(np.mean([run.value for run in runs])), replicates.mean(axis=1))

    def __sub__(self, other: Resampled) -> Resampled:
        """The paired difference: both come from the same resamples."""
        return Resampled(self.value - other.value, self.replicates - other.replicates)

    def estimate(self) -> Estimate:
        """Return the value with the 2.5 and 97.5 percentiles of the defined replicates."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # no replicate is defined: NaN is the answer
            low, high = np.nanpercentile(self.replicates, [2.5, 97.5])
        return Estimate(self.value, float(low), float(high))


@dataclass(frozen=True)
class Resamples:
    """Which groups of samples are drawn, the same for everybody who is judged."""

    groups: Ints
    """(G,) numbers of the groups, such as fires or times, ascending."""
    weights: Ints
    """(R, G) how often each group is drawn."""

    @classmethod
    def draw(cls, groups: Ints, resamples: int, seed: int | Sequence[int]) -> Self:
        """Draw G groups with replacement, R times."""
        count = len(groups)
        random = np.random.default_rng(seed)
        return cls(groups, random.multinomial(count, np.full(count, 1 / count), size=resamples))

    @classmethod
    def draw_together(cls, groups: Ints, wholes: Ints, resamples: int, seed: int) -> Self:
        """Draw as many wholes as there are, each with all groups that `wholes`, (G,), says to belong to it.

        Rows sum to G on average only, since wholes are of different size.
        """
        which, of = np.unique(wholes, return_inverse=True)
        return cls(groups, cls.draw(which, resamples, seed).weights[:, of])

    def of(self, groups: Ints) -> Ints:
        """Return the weights of some of the groups, (R, g)."""
        return self.weights[:, np.searchsorted(self.groups, groups)]


def spells(times: NDArray[np.datetime64], length: np.timedelta64 = SPELL) -> Ints:
    """Return the number of the spell of weather that each time belongs to, (n,).

    A spell lasts for `length` from its first time; the next one begins with the first time after it. Samples of one
    spell see the same highs and lows, so they are drawn as a whole.
    """
    found, spell, end = np.zeros(len(times), np.int64), -1, None
    for k in np.argsort(times, kind="stable"):
        if end is None or times[k] >= end:
            spell, end = spell + 1, times[k] + length
        found[k] = spell
    return found


@dataclass(frozen=True, slots=True)
class Sums:
    """What a ratio such as nats per token is made of; (samples,) each.

    Samples are drawn as wholes: add up beforehand what is not independent, such as the captions of one day.
    """

    sums: Floats
    """E.g. the negative log-likelihood of each sample, nats."""
    weights: Floats
    """E.g. its number of tokens."""

    def __post_init__(self) -> None:
        if self.sums.ndim != 1 or self.sums.shape != self.weights.shape or not len(self.sums):
            raise ValueError(
                f"sums and weights must be two lists of the same length, not {self.sums.shape} and {self.weights.shape}"
            )


def paired_bootstrap(a: Sums, b: Sums, samples: int = 2000, seed: int = 0) -> Estimate:
    """Return the ratio of sums of `a` less that of `b`, with the 95 % interval; the same seed gives the same numbers.

    A single sample has no interval. Holds 8 bytes for each sample of each resample.

    Raises:
        ValueError: `a` and `b` are not of the same samples.
    """
    if len(a.sums) != len(b.sums):
        raise ValueError(f"{len(a.sums)} samples cannot be paired with {len(b.sums)}; score both on the same ones")
    drawn = Resamples.draw(np.arange(len(a.sums)), samples, seed).weights
    found = (_resampled(a, drawn) - _resampled(b, drawn)).estimate()
    return found if len(a.sums) > 1 else Estimate(found.value, np.nan, np.nan)


def _resampled(ratio: Sums, drawn: Ints) -> Resampled:
    with np.errstate(invalid="ignore", divide="ignore"):
        return Resampled(float(ratio.sums.sum() / ratio.weights.sum()), (drawn @ ratio.sums) / (drawn @ ratio.weights))
