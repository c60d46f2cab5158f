"""Roll-outs against plain loops over pixels, on random batches and in cases worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from models.fire.batch import FireBatch
from tasks.fire.rollout import (
    RolloutCounts,
    advance,
    burnt_shares,
    count_rollout,
    join_counts,
    roll_out,
    rollout_measures,
)
from tests.fire.fire_batches import SPEC, random_batch

HISTORY = 4


def shorter(batch: FireBatch) -> FireBatch:
    """Histories of 4 and 2 frames, which is the most and less than that."""
    return replace(batch, age=batch.age.clamp(max=torch.tensor([4, 2])[:, None, None].to(torch.uint8)))


@pytest.fixture
def batch() -> FireBatch:
    return shorter(random_batch(frames=(4, 2)))


def advanced(batch: FireBatch, burnt: Tensor, **changes: Tensor) -> FireBatch:
    wind, known = torch.full((2, 3), 0.25), torch.tensor([True, False])
    return advance(batch, burnt, wind, known, patch=SPEC.patch, history=HISTORY, **changes)


def test_ages_grow_up_to_the_length_of_the_history(batch: FireBatch) -> None:
    burnt = batch.target | (torch.rand(batch.domain.shape, generator=torch.Generator().manual_seed(0)) < 0.1)
    found = advanced(batch, burnt)
    frames = (4, 3)
    for b, y, x in np.ndindex(*batch.domain.shape):
        age = int(batch.age[b, y, x])
        if not batch.domain[b, y, x]:
            expected = 0
        elif age:
            expected = min(age + 1, frames[b])
        else:
            expected = int(burnt[b, y, x])
        assert found.age[b, y, x] == expected
    assert found.age.dtype == batch.age.dtype


def test_series_move_on_by_one_frame(batch: FireBatch) -> None:
    found = advanced(batch, batch.target)
    for name in ("fire", "time_valid", "wind", "wind_valid"):
        assert torch.equal(getattr(found, name)[:, :-1], getattr(batch, name)[:, 1:])
        assert getattr(found, name).shape[1] == HISTORY
    assert found.time_valid[:, -1].tolist() == [True, True]
    assert found.wind_valid[:, -1].tolist() == [True, False]
    assert (found.wind[:, -1] == 0.25).all()
    assert torch.equal(found.fire[:, -1], burnt_shares(found.burnt, batch.domain, SPEC.patch).float())
    assert torch.equal(found.step, batch.step + 1)
    assert not found.target.any()
    assert torch.equal(advanced(batch, batch.target, target=batch.counted).target, batch.counted)
    short = random_batch(frames=(2, 2))
    assert advanced(short, short.target).fire.shape[1] == 3, "a history grows until it is as long as it may be"


def test_shares_are_of_the_domain_pixels_of_each_token(batch: FireBatch) -> None:
    burnt = batch.burnt | ~batch.domain
    found = burnt_shares(burnt, batch.domain, SPEC.patch)
    rows, columns = batch.grid
    for b, row, column in np.ndindex(len(batch), rows, columns):
        pixels = (b, slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4))
        domain = batch.domain[pixels].numpy()
        share = (burnt[pixels].numpy() & domain).sum() / max(domain.sum(), 1)
        assert found[b, row * columns + column] == np.float16(share)


def test_what_burnt_stays_burnt_and_a_probability_at_the_threshold_burns() -> None:
    now = random_batch(frames=(4, 4))
    later = replace(now, step=now.step + 1, wind=now.wind + 1)
    seen: list[FireBatch] = []

    def predict(batch: FireBatch) -> Tensor:
        seen.append(batch)
        probability = torch.full(batch.domain.shape, 0.3 - 0.0001)
        probability[:, len(seen), :] = 0.3
        return probability

    states = roll_out(predict, [now, later], 0.3, patch=SPEC.patch, history=HISTORY)
    lines = [torch.zeros_like(now.domain) for _ in range(2)]
    lines[0][:, 1], lines[1][:, 1:3] = True, True
    for state, line in zip(states, lines, strict=True):
        assert torch.equal(state, (now.burnt | line) & now.domain)
    assert torch.equal(seen[1].burnt, states[0])
    assert torch.equal(seen[1].wind[:, -1], now.wind[:, -1] + 1)
    assert torch.equal(seen[1].wind_valid[:, -1], later.wind_valid[:, -1])
    assert torch.equal(seen[1].target, later.target)


def test_batches_of_other_fires_are_refused() -> None:
    now = random_batch(frames=(4, 4))
    other = replace(now, step=now.step + 1, fire_index=now.fire_index + 1)
    with pytest.raises(AssertionError, match="different fires"):
        roll_out(lambda batch: batch.age.float(), [now, other], 0.5, patch=SPEC.patch, history=HISTORY)


def test_overlaps_are_counted_where_pixels_count() -> None:
    now = random_batch(frames=(4, 4))
    draw = torch.Generator().manual_seed(5)
    truth = [replace(now, target=torch.rand(now.domain.shape, generator=draw) < 0.5) for _ in range(2)]
    truth[1].counted = truth[1].counted & (torch.rand(now.domain.shape, generator=draw) < 0.5)
    truth[1].age = now.age + truth[0].target.to(now.age.dtype)
    states = torch.rand(2, *now.domain.shape, generator=draw) < 0.4
    found = count_rollout(states, truth)
    assert found.fire.tolist() == now.fire_index.tolist()
    assert found.step.tolist() == now.step.tolist()
    for b, k in np.ndindex(2, 2):
        said, so, counted = (x.numpy() for x in (states[k, b], truth[k].target[b], truth[k].counted[b]))
        grown = counted & ~now.burnt[b].numpy()
        assert found.full[b, k].tolist() == [(said & so & counted).sum(), ((said | so) & counted).sum()]
        assert found.growth[b, k].tolist() == [(said & so & grown).sum(), ((said | so) & grown).sum()]


COUNTS = RolloutCounts(
    fire=np.array([2, 2, 7]),
    step=np.array([0, 1, 0]),
    full=np.array([[[1, 2], [3, 4]], [[5, 10], [0, 0]], [[2, 8], [6, 8]]]),
    growth=np.array([[[0, 1], [1, 2]], [[1, 1], [0, 0]], [[0, 4], [2, 4]]]),
)


def test_measures_of_a_case_worked_out_by_hand() -> None:
    found = rollout_measures(COUNTS)
    assert found["iou"].tolist() == [[8 / 20, 9 / 12]]
    assert found["growth_iou"].tolist() == [[1 / 6, 3 / 6]]
    np.testing.assert_allclose(found["macro_iou"], [[(1 / 2 + 1 / 2 + 1 / 4) / 3, (3 / 4 + 6 / 8) / 2]])


def test_weights_say_how_often_each_fire_counts() -> None:
    found = rollout_measures(COUNTS, np.array([[2, 0], [1, 3], [0, 0]]))
    np.testing.assert_allclose(found["iou"], [[12 / 24, 6 / 8], [12 / 36, 21 / 28], [np.nan, np.nan]])
    np.testing.assert_allclose(found["growth_iou"], [[1 / 2, 1 / 2], [1 / 14, 7 / 14], [np.nan, np.nan]])
    np.testing.assert_allclose(found["macro_iou"], [[1 / 2, 3 / 4], [(1 + 3 / 4) / 5, 3 / 4], [np.nan, np.nan]])


def test_parts_are_joined_in_their_order() -> None:
    parts = [
        RolloutCounts(*(getattr(COUNTS, name)[rows] for name in ("fire", "step", "full", "growth")))
        for rows in (slice(0, 1), slice(1, 3))
    ]
    joined = join_counts(parts, 2)
    for name in ("fire", "step", "full", "growth"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(COUNTS, name))
    assert joined.fires.tolist() == [2, 7]
    assert join_counts([], 3).full.shape == join_counts([], 3).growth.shape == (0, 3, 2)
