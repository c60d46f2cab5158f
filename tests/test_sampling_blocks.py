"""Shuffling block by block: a permutation that mixes, reads in stretches, and goes on anywhere from five values."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.sampling import BlockPermutation, KeyedBatchSampler, LoaderState

seeds = st.integers(0, 2**64 - 1)


@pytest.mark.long
@settings(deadline=None)
@given(
    n=st.integers(1, 3000),
    seed=seeds,
    epoch=st.integers(0, 1000),
    block=st.integers(1, 300),
    window=st.integers(1, 20),
)
def test_it_is_a_bijection_at_any_size(n: int, seed: int, epoch: int, block: int, window: int) -> None:
    permutation = BlockPermutation(n, seed, epoch, block, window)
    values = permutation.take(np.arange(n))
    assert sorted(values.tolist()) == list(range(n))
    some = np.random.default_rng(0).permutation(n)[:40]
    assert permutation.take(some).tolist() == values[some].tolist()
    assert [permutation[int(k)] for k in some] == values[some].tolist()
    assert len(permutation) == n


def test_a_window_of_positions_touches_few_blocks() -> None:
    n, block, window = 100_000, 100, 16
    order = BlockPermutation(n, 1, 2, block, window).take(np.arange(n))
    for begin in range(0, n - 1600, 1600):
        touched = np.unique(order[begin : begin + 1600] // block)
        assert len(touched) <= 4 * window  # of two windows, and a block lies across two multiples; of all: 800 of 1000


def test_it_mixes() -> None:
    n, block = 100_000, 100
    order = BlockPermutation(n, 1, 2, block, 16).take(np.arange(n))
    step = np.abs(np.diff(order))
    assert (step == 1).mean() < 0.005
    assert (step < block).mean() < 0.12  # of 16 blocks a neighbour comes from the same one in 6 %, or from the next
    assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < 0.15
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.15


def test_windows_are_shuffled_differently() -> None:
    order = BlockPermutation(64 * 160, 1, 2, 10, 16).take(np.arange(64 * 160)).reshape(64, 160)
    places = order % 10  # within blocks, all turned by the same number
    assert len({tuple(row) for row in places.tolist()}) == 64


def test_epochs_and_seeds_differ_in_order_and_in_borders() -> None:
    n = 10_000
    orders = [BlockPermutation(n, s, e, 100, 4).take(np.arange(n)) for s, e in ((0, 0), (0, 1), (1, 0))]
    companions = []
    for k, order in enumerate(orders):
        assert (order == orders[k - 1]).mean() < 0.01
        position = np.empty(n, int)
        position[order] = np.arange(n)
        companions.append(np.flatnonzero(np.abs(np.diff(position)) > 400) % 100)
    borders = [np.bincount(found, minlength=100).argmax() for found in companions]
    assert len(set(borders)) == 3


@pytest.mark.long
def test_every_sample_is_at_every_place_equally_often_short_block_or_not() -> None:
    n = 7  # blocks of 3, 3 and 1
    counts = np.zeros((n, n))
    for epoch in range(4000):
        counts[np.arange(n), BlockPermutation(n, 3, epoch, 3, 2).take(np.arange(n))] += 1
    expected = 4000 / n
    assert ((counts - expected) ** 2 / expected).sum() < 72  # chi-squared, 36 degrees of freedom, p = 0.0003


def test_no_epoch_ends_in_a_small_window() -> None:
    n, block, window = 17 * 50, 50, 16  # 16 blocks and one more
    last = BlockPermutation(n, 0, 0, block, window).take(np.arange(n - 40, n))
    assert len(np.unique(last // block)) > 5


def test_huge_orders_cost_nothing() -> None:
    n = 10**15
    permutation = BlockPermutation(n, 5, 0)
    found = permutation.take(np.arange(n - 1000, n))
    assert len(set(found.tolist())) == 1000
    assert 0 <= found.min() <= found.max() < n
    assert permutation[n - 1] == found[-1]
    with pytest.raises(IndexError):
        permutation[n]


@pytest.mark.parametrize("sizes", [(0, 1, 1), (10, 0, 1), (10, 1, 0)])
def test_impossible_sizes_are_refused(sizes: tuple[int, int, int]) -> None:
    n, block, window = sizes
    with pytest.raises(ValueError, match="at least 1"):
        BlockPermutation(n, 0, 0, block, window)
    if n:
        with pytest.raises(ValueError, match="at least 1"):
            KeyedBatchSampler(n, 1, 0, block=block, window=window)


def ranks_of(n: int, batch: int, world_size: int, state: LoaderState | None, block: int = 8) -> list[list[int]]:
    """Return the global batches that so many ranks read from a state to the end of its epoch."""
    parts = []
    for rank in range(world_size):
        sampler = KeyedBatchSampler(
            n, batch, 5, rank=rank, world_size=world_size, epoch=2, block=block, window=4, fingerprint="f00d"
        )
        if state is not None:
            sampler.load_state(state)
        parts.append(list(sampler))
        assert {len(mine) for mine in parts[-1]} <= {batch // world_size}
    assert len({len(batches) for batches in parts}) == 1
    return [list(chain(*together)) for together in zip(*parts, strict=True)]


@settings(deadline=None, max_examples=40)
@given(n=st.integers(48, 900), step=st.integers(0, 20), worlds=st.permutations([1, 2, 3, 4, 6, 12]))
def test_any_number_of_ranks_goes_on_exactly(n: int, step: int, worlds: list[int]) -> None:
    batch = 24
    step = min(step, n // batch)
    whole = ranks_of(n, batch, worlds[0], None)
    sampler = KeyedBatchSampler(n, batch, 5, epoch=2, block=8, window=4, fingerprint="f00d")
    kept = json.dumps(sampler.state(step).to_dict())
    state = LoaderState.from_dict(json.loads(kept))
    assert len(state.to_dict()) == 5
    assert ranks_of(n, batch, worlds[1], state) == whole[step:]


def test_a_position_of_another_order_is_refused() -> None:
    sampler = KeyedBatchSampler(1000, 8, 5, block=16, fingerprint="f00d")
    state = sampler.state(3)
    others = {
        "f00d 1000 samples": KeyedBatchSampler(1000, 8, 5, block=16, fingerprint="beef"),
        "blocks of 16 in windows of 16": KeyedBatchSampler(1000, 8, 5, block=32, fingerprint="f00d"),
        "windows of 16": KeyedBatchSampler(1000, 8, 5, block=16, window=2, fingerprint="f00d"),
        "in order": KeyedBatchSampler(1000, 8, 5, shuffle=False, fingerprint="f00d"),
        r"seed \(5\)": KeyedBatchSampler(1000, 8, 6, block=16, fingerprint="f00d"),
        r"global batch size \(8\)": KeyedBatchSampler(1000, 16, 5, block=16, fingerprint="f00d"),
    }
    for words, other in others.items():
        with pytest.raises(ValueError, match=f"belongs to another .*{words}"):
            other.load_state(state)
        assert (other.epoch, other.step) == (0, 0)
    with pytest.raises(ValueError, match="step 126 of epoch 0 does not exist"):
        sampler.load_state(replace(state, step=126))
    with pytest.raises(ValueError, match="not the fields of a loader's state"):
        LoaderState.from_dict({"epoch": 1})
