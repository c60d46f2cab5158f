"""Fire scores over resampled fires: the samples of one fire are never independent, so fires are drawn whole.

So are seeds: a model is what its recipe trains, and another seed trains another one. With three of them their share of
the variance comes out a third too small, as that of any sample's own spread does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.fire.rollout import RolloutCounts, rollout_measures
from tasks.fire.scores import SampleHistograms, measures
from tasks.intervals import Ints, Resampled, Resamples


def resampled_measures(
    drawn: Resamples, runs: Sequence[tuple[SampleHistograms, float]], calibration_bins: int, seeds: Ints | None = None
) -> dict[str, Resampled]:
    """Return every measure of `scores.measures`, its mean over runs that differ only in their seed.

    Args:
        drawn: resamples of the fires.
        runs: samples and threshold of each run.
        calibration_bins: see `scores.measures`.
        seeds: how often each run is drawn in each resample, (R, runs); once when absent.

    Raises:
        ValueError: the runs were not scored on the samples of these fires, or not on the same ones.
    """
    first = runs[0][0]
    for samples, _ in runs:
        same = np.array_equal(samples.fire, first.fire) and np.array_equal(samples.step, first.step)
        if not (same and np.array_equal(samples.fires, drawn.groups)):
            raise ValueError("predictors can be compared on the same samples only; score all of them again")
    points = [measures(samples, threshold, calibration_bins) for samples, threshold in runs]
    spreads = [measures(samples, threshold, calibration_bins, drawn.weights) for samples, threshold in runs]
    return {
        name: Resampled.mean([Resampled(p[name][0], s[name]) for p, s in zip(points, spreads, strict=True)], seeds)
        for name in points[0]
    }


def resampled_rollouts(
    drawn: Resamples, runs: Sequence[RolloutCounts], seeds: Ints | None = None
) -> dict[str, list[Resampled]]:
    """Return every measure of `rollout.rollout_measures` by horizon, its mean over runs; arguments as above."""
    points = [rollout_measures(counts) for counts in runs]
    spreads = [rollout_measures(counts, drawn.of(counts.fires)) for counts in runs]
    return {
        name: [
            Resampled.mean(
                [Resampled(p[name][0, h], s[name][:, h]) for p, s in zip(points, spreads, strict=True)], seeds
            )
            for h in range(points[0][name].shape[1])
        ]
        for name in points[0]
    }
