"""Intervals hold what they promise: on data whose truth is known, and beside the theory of the normal distribution."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.intervals import Estimate, Resampled, Resamples, Sums, paired_bootstrap, spells


def sums(values: np.ndarray, weights: np.ndarray | float = 1.0) -> Sums:
    return Sums(values, np.broadcast_to(np.asarray(weights, np.float64), values.shape).copy())


def test_the_ends_are_those_that_leave_out_a_fortieth_on_each_side() -> None:
    found = Resampled(7.0, np.random.default_rng(0).permutation(1001).astype(float)).estimate()
    assert found == Estimate(7.0, 25.0, 975.0)


def test_replicates_without_a_value_count_on_neither_side() -> None:
    some = np.concatenate([np.arange(1001.0), np.full(500, np.nan)])
    assert Resampled(7.0, some).estimate() == Estimate(7.0, 25.0, 975.0)
    none = Resampled(np.nan, np.full(3, np.nan)).estimate()
    assert none.json() == {"value": None, "low": None, "high": None}


def test_a_mean_over_runs_is_taken_resample_by_resample() -> None:
    found = Resampled.mean([Resampled(1.0, np.array([0.0, 1.0, 5.0])), Resampled(3.0, np.array([2.0, 1.0, 7.0]))])
    assert (found.value, found.replicates.tolist()) == (2.0, [1.0, 1.0, 6.0])


def test_runs_that_are_drawn_count_as_often_as_they_are_drawn() -> None:
    """A run that has no value in a resample spoils it only where it is drawn."""
    runs = [Resampled(1.0, np.array([0.0, 1.0, np.nan])), Resampled(3.0, np.array([2.0, 1.0, 7.0]))]
    found = Resampled.mean(runs, np.array([[2, 0], [1, 1], [0, 2]]))
    assert (found.value, found.replicates.tolist()) == (2.0, [0.0, 1.0, 7.0])


def test_an_interval_over_runs_is_as_wide_as_runs_differ() -> None:
    """Eight runs around 5 with deviation 2, each of which knows its own score exactly."""
    scores = np.random.default_rng(4).normal(5, 2, 8)
    runs = [Resampled(score, np.full(10_000, score)) for score in scores]
    drawn = Resamples.draw(np.arange(8), 10_000, seed=(0, 1)).weights
    found, fixed = (Resampled.mean(runs, chosen).estimate() for chosen in (drawn, None))
    assert (fixed.low, fixed.high) == pytest.approx((scores.mean(), scores.mean()))
    error = scores.std() / np.sqrt(8)
    assert (found.low, found.high) == pytest.approx(
        (scores.mean() - 1.96 * error, scores.mean() + 1.96 * error), abs=0.1 * error
    )


def test_what_belongs_together_is_drawn_together() -> None:
    drawn = Resamples.draw_together(np.array([3, 5, 8, 9]), np.array([7, 2, 7, 4]), 5_000, seed=0)
    together, alone, last = drawn.weights[:, 0], drawn.weights[:, 1], drawn.weights[:, 3]
    np.testing.assert_array_equal(together, drawn.weights[:, 2])
    assert (together + alone + last == 3).all()
    np.testing.assert_allclose(drawn.weights.mean(0), 1, atol=0.05)


def test_a_difference_is_taken_resample_by_resample() -> None:
    """What moves both alike moves no difference: the interval of equal noise is a point."""
    noise = np.random.default_rng(3).normal(0, 100, 50)
    found = paired_bootstrap(sums(noise + 5), sums(noise), samples=200)
    assert (found.value, found.low, found.high) == pytest.approx((5, 5, 5))


def test_as_many_are_drawn_as_there_are_each_as_often_as_any_other() -> None:
    drawn = Resamples.draw(np.array([3, 5, 8, 9]), 20_000, seed=0)
    assert (drawn.weights.sum(1) == 4).all()
    np.testing.assert_allclose(drawn.weights.mean(0), 1, atol=0.03)
    np.testing.assert_allclose(drawn.weights.var(0), 3 / 4, atol=0.03)  # of a multinomial: n p (1 - p)
    np.testing.assert_array_equal(drawn.of(np.array([5, 9])), drawn.weights[:, [1, 3]])
    assert not np.array_equal(drawn.weights, Resamples.draw(drawn.groups, 20_000, seed=1).weights)


def test_the_width_is_that_of_normal_theory() -> None:
    values = np.random.default_rng(2).normal(10, 3, 400)
    found = paired_bootstrap(sums(values), sums(np.zeros(400)), samples=10_000)
    error = values.std() / np.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_an_interval_of_95_percent_covers_the_truth_about_95_times_of_100() -> None:
    """800 data sets of 60 samples; the share that covers scatters by less than 0.01 around its mean."""
    random = np.random.default_rng(1)
    covered = []
    for _ in range(800):
        weights = random.integers(5, 30, 60).astype(np.float64)
        difficulty = random.normal(0, 4, 60)
        model = sums(2.0 * weights + difficulty + random.normal(0, 1, 60), weights)
        better = sums(1.7 * weights + difficulty + random.normal(0, 1, 60), weights)
        found = paired_bootstrap(model, better, samples=200, seed=int(random.integers(1 << 31)))
        covered.append(found.low <= 0.3 <= found.high)
    assert 0.915 < np.mean(covered) < 0.97


@pytest.mark.parametrize(
    ("values", "weights"),
    [
        (np.ones((3, 1)), np.ones((3, 1))),
        (np.ones(3), np.ones(2)),
        (np.ones(0), np.ones(0)),
        (np.ones(()), np.ones(())),
    ],
)
def test_sums_that_do_not_belong_together_are_refused(values: np.ndarray, weights: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be two lists of the same length"):
        Sums(values, weights)


def test_a_spell_lasts_ten_days_from_its_first_time_in_any_order_of_times() -> None:
    days = np.array([25, 0, 9, 10, 12, 19, 20, 0, 300])
    times = np.datetime64("2024-01-01") + days * np.timedelta64(1, "D")
    assert spells(times).tolist() == [2, 0, 0, 1, 1, 1, 2, 0, 3]
    assert spells(times.astype("datetime64[s]")).tolist() == [2, 0, 0, 1, 1, 1, 2, 0, 3]
    assert spells(times[:0]).tolist() == []


def test_a_single_sample_has_a_value_and_no_interval() -> None:
    found = paired_bootstrap(sums(np.array([3.0])), sums(np.array([1.0])))
    assert found.json() == {"value": 2.0, "low": None, "high": None}
