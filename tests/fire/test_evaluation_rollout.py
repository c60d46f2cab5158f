"""Free roll-outs: the batch that `advance` builds is the dataset's own, and overlaps equal plain loops."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.fire.batch import FireBatch
from tasks.fire.bootstrap import resampled_rollouts
from tasks.fire.dataset import FireDataset, collate
from tasks.fire.dilation import copy_last
from tasks.fire.rollout import (
    RolloutCounts,
    advance,
    count_rollout,
    join_counts,
    roll_out,
    rollout_measures,
    rollout_starts,
)
from tasks.intervals import Resamples


def load(samples: FireDataset, *indices: int) -> FireBatch:
    return collate([samples.sample(index, seed=0) for index in indices])


def differing(one: FireBatch, two: FireBatch) -> list[str]:
    names = [f.name for f in fields(one) if f.name != "grid"]
    return [name for name in names if not torch.equal(getattr(one, name), getattr(two, name))]


@pytest.mark.parametrize("options", [{"history": 6}, {"history": 2}, {"history": 1}, {"history": 3, "wind": False}])
def test_a_batch_advanced_by_the_truth_is_the_datasets_own(fires: tuple[Path, Path], options: dict[str, int]) -> None:
    samples = FireDataset(*fires, "all", **options)
    pairs = rollout_starts(samples.samples, 2)
    assert len(pairs) > 20
    for index in range(0, len(pairs), 3):  # fires of different size and samples of different length in one batch
        now, following = (load(samples, *(chain[ahead] for chain in pairs[index : index + 3])) for ahead in (0, 1))
        wind, known = following.wind[:, -1], following.wind_valid[:, -1]
        options_of = {"patch": samples.spec.patch, "history": samples.history, "target": following.target}
        assert differing(advance(now, now.target, wind, known, **options_of), following) == []
        wrong = advance(now, now.burnt, wind, known, **options_of)
        assert (now.target.equal(now.burnt)) or {"age", "fire"} <= set(differing(wrong, following))


def test_a_perfect_predictor_rolls_out_perfectly_and_copying_does_not(fires: tuple[Path, Path]) -> None:
    samples = FireDataset(*fires, "all", history=4)
    starts = rollout_starts(samples.samples, 3)
    parts: dict[str, list] = {"oracle": [], "copy": []}
    for chain in starts:
        truth = [load(samples, index) for index in chain]
        for name, predict in (("oracle", lambda batch: batch.target.float()), ("copy", copy_last)):
            states = roll_out(predict, truth, 0.5, patch=samples.spec.patch, history=samples.history)
            assert not (states[:-1] & ~states[1:]).any(), "fire went out"
            parts[name].append(count_rollout(states, truth))
    oracle, copied = (rollout_measures(join_counts(parts[name], 3)) for name in ("oracle", "copy"))
    for values in oracle.values():
        assert values == pytest.approx(1)
    assert copied["growth_iou"] == pytest.approx(0)
    assert (np.diff(copied["iou"][0]) < 0).all(), "what only copies falls behind with every step"
    assert len(join_counts(parts["copy"], 3).fire) == len(starts)


def test_overlaps_are_counted_inside_the_domain(fires: tuple[Path, Path]) -> None:
    samples = FireDataset(*fires, "all", history=4)
    truth = [load(samples, index) for index in rollout_starts(samples.samples, 2)[3]]
    states = torch.rand((2, *truth[0].target.shape), generator=torch.Generator().manual_seed(0)) < 0.3
    counts = count_rollout(states, truth)
    for horizon, batch in enumerate(truth):
        both = either = grown_both = grown_either = 0
        for row, column in truth[0].domain[0].nonzero().tolist():
            predicted, true = bool(states[horizon, 0, row, column]), bool(batch.target[0, row, column])
            new = not truth[0].burnt[0, row, column]
            both, either = both + (predicted and true), either + (predicted or true)
            grown_both, grown_either = (
                grown_both + (new and predicted and true),
                grown_either + (new and (predicted or true)),
            )
        assert counts.full[0, horizon].tolist() == [both, either]
        assert counts.growth[0, horizon].tolist() == [grown_both, grown_either]


def test_a_rollout_sees_its_own_predictions_and_the_true_wind(fires: tuple[Path, Path]) -> None:
    samples = FireDataset(*fires, "all", history=4)
    truth = [load(samples, index) for index in rollout_starts(samples.samples, 3)[0]]
    seen: list[FireBatch] = []

    def grow_right(batch: FireBatch) -> torch.Tensor:
        seen.append(batch)
        return (batch.burnt | batch.burnt.roll(1, dims=2)).float()

    states = roll_out(grow_right, truth, 0.5, patch=samples.spec.patch, history=samples.history)
    for step, batch in enumerate(seen):
        assert torch.equal(batch.wind[:, -1], truth[step].wind[:, -1])
        assert torch.equal(batch.step, truth[step].step)
        if step:
            assert torch.equal(batch.burnt, states[step - 1])
    with pytest.raises(AssertionError, match="one step apart"):
        roll_out(grow_right, truth[::2], 0.5, patch=samples.spec.patch, history=samples.history)


def test_a_start_needs_all_its_frames() -> None:
    samples = [(4, 0), (4, 1), (4, 2), (9, 0), (7, 0), (7, 1)]
    assert rollout_starts(samples, 3) == [[0, 1, 2]]
    assert rollout_starts(samples, 2) == [[0, 1], [1, 2], [4, 5]]
    assert np.isnan(rollout_measures(join_counts([], 3))["iou"]).all()


def test_garbage_outside_the_domain_is_not_carried_on(fires: tuple[Path, Path]) -> None:
    samples = FireDataset(*fires, "all", history=4)
    batch = load(samples, 0, 1)
    dirty = replace(batch, age=torch.where(batch.domain, batch.age, 3).to(torch.uint8))
    wind, known = batch.wind[:, -1], batch.wind_valid[:, -1]
    options = {"patch": samples.spec.patch, "history": samples.history}
    clean, other = (advance(b, batch.target, wind, known, **options) for b in (batch, dirty))
    assert torch.equal(clean.fire, other.fire)
    assert torch.equal(clean.age, other.age)


def test_rollout_intervals_resample_the_fires_of_the_starts() -> None:
    random = np.random.default_rng(0)
    fire = np.array([3, 3, 8, 9, 9, 9])
    union = random.integers(20, 60, (6, 2))
    full = np.stack([(union * random.random((6, 2))).astype(int), union], axis=-1)
    counts = RolloutCounts(fire, np.arange(6), full, full)
    drawn = Resamples.draw(np.array([1, 3, 8, 9]), 50, 0)  # fire 1 is too short for a start
    found = resampled_rollouts(drawn, [counts])["iou"][1]
    assert found.value == pytest.approx(full[:, 1, 0].sum() / full[:, 1, 1].sum())
    for row in range(50):
        copies = [i for i in range(6) for _ in range(drawn.weights[row, drawn.groups.tolist().index(fire[i])])]
        if copies:
            assert found.replicates[row] == pytest.approx(full[copies, 1, 0].sum() / full[copies, 1, 1].sum())
        else:
            assert np.isnan(found.replicates[row])
