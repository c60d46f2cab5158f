"""Intervals of fire scores by resampling whole fires: the samples of one fire are never independent."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.fire.rollout import RolloutCounts, rollout_measures
from tasks.fire.scores import Floats, Ints, SampleHistograms, measures


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
    """Which fires are drawn, the same for every predictor."""

    fires: Ints
    """(F,) numbers of the fires, ascending."""
    weights: NDArray[np.int64]
    """(R, F) how often each fire is drawn; rows sum to F."""

    @classmethod
    def draw(cls, fires: Ints, resamples: int, seed: int) -> Resamples:
        """Draw F fires with replacement, R times."""
        count = len(fires)
        random = np.random.default_rng(seed)
        return cls(fires, random.multinomial(count, np.full(count, 1 / count), size=resamples))

    def of(self, fires: Ints) -> NDArray[np.int64]:
        """Return the weights of some of the fires, (R, f)."""
        return self.weights[:, np.searchsorted(self.fires, fires)]

    def measures(self, runs: Sequence[tuple[SampleHistograms, float]], calibration_bins: int) -> dict[str, Resampled]:
        """Return every measure of `scores.measures`, its mean over runs that differ only in their seed.

        Args:
            runs: samples and threshold of each run.
            calibration_bins: see `scores.measures`.

        Raises:
            ValueError: the runs were not scored on the samples of these fires, or not on the same ones.
        """
        first = runs[0][0]
        for samples, _ in runs:
            same = np.array_equal(samples.fire, first.fire) and np.array_equal(samples.step, first.step)
            if not (same and np.array_equal(samples.fires, self.fires)):
                raise ValueError("predictors can be compared on the same samples only; score all of them again")
        points = [measures(samples, threshold, calibration_bins) for samples, threshold in runs]
        spreads = [measures(samples, threshold, calibration_bins, self.weights) for samples, threshold in runs]
        return {name: _mean([p[name][0] for p in points], [s[name] for s in spreads]) for name in points[0]}

    def rollouts(self, runs: Sequence[RolloutCounts]) -> dict[str, list[Resampled]]:
        """Return every measure of `rollout.rollout_measures` by horizon, its mean over runs."""
        points = [rollout_measures(counts) for counts in runs]
        spreads = [rollout_measures(counts, self.of(counts.fires)) for counts in runs]
        return {
            name: [
                _mean([p[name][0, h] for p in points], [s[name][:, h] for s in spreads])
                for h in range(points[0][name].shape[1])
            ]
            for name in points[0]
        }


def _mean(values: Sequence[Any], replicates: Sequence[Floats]) -> Resampled:
    return Resampled(float(np.mean(values)), np.mean(replicates, axis=0))
