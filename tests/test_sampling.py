"""The order of samples: a pure function of (seed, epoch), the same after any interruption."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from storage.sampling import KeyedBatchSampler, KeyedPermutation, sample_seed

seeds = st.integers(0, 2**64 - 1)


@settings(deadline=None)
@given(n=st.integers(1, 3000), seed=seeds, epoch=st.integers(0, 1000))
def test_a_permutation_is_a_bijection(n: int, seed: int, epoch: int) -> None:
    permutation = KeyedPermutation(n, seed, epoch)
    values = permutation.take(np.arange(n))
    assert sorted(values.tolist()) == list(range(n))
    assert [permutation[k] for k in range(0, n, 37)] == values[::37].tolist()


def test_epochs_and_seeds_differ_and_positions_mix() -> None:
    orders = [KeyedPermutation(10_000, s, e).take(np.arange(10_000)) for s, e in ((0, 0), (0, 1), (1, 0))]
    for k, order in enumerate(orders):
        assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05
        assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.05
        assert (order == orders[k - 1]).mean() < 0.01


def test_every_place_is_reached_equally_often() -> None:
    counts = np.zeros((7, 7))
    for epoch in range(4000):
        counts[np.arange(7), KeyedPermutation(7, 3, epoch).take(np.arange(7))] += 1
    expected = 4000 / 7
    assert ((counts - expected) ** 2 / expected).sum() < 72  # chi-squared, 36 degrees of freedom, p = 0.0003


def test_huge_permutations_cost_nothing() -> None:
    n = 10**15
    permutation = KeyedPermutation(n, 5, 0)
    found = permutation.take(np.arange(n - 1000, n))
    assert len(set(found.tolist())) == 1000
    assert found.max() < n
    assert permutation[n - 1] == found[-1]
    with pytest.raises(IndexError):
        permutation[n]


@settings(deadline=None)
@given(seed=seeds, epoch=st.integers(0, 100), index=st.integers(0, 2**40))
def test_sample_seeds_are_pure_and_differ(seed: int, epoch: int, index: int) -> None:
    value = sample_seed(seed, epoch, index)
    assert 0 <= value < 2**63
    assert value == sample_seed(seed, epoch, index)
    assert value not in {sample_seed(seed, epoch, index + 1), sample_seed(seed, epoch + 1, index)}
    torch.Generator().manual_seed(value)


@settings(deadline=None)
@given(
    n=st.integers(1, 200),
    share=st.integers(1, 6),
    world_size=st.sampled_from([1, 2, 3, 4]),
    seed=seeds,
    shuffle=st.booleans(),
    drop_last=st.booleans(),
)
def test_ranks_partition_every_global_batch(
    n: int, share: int, world_size: int, seed: int, shuffle: bool, drop_last: bool
) -> None:
    size = share * world_size
    if drop_last and n < size:
        with pytest.raises(ValueError, match="do not fill one global batch"):
            KeyedBatchSampler(n, size, seed, drop_last=True)
        return
    options: dict[str, Any] = {"epoch": 3, "shuffle": shuffle, "drop_last": drop_last}
    whole = list(KeyedBatchSampler(n, size, seed, **options))
    ranks = [KeyedBatchSampler(n, size, seed, rank=r, world_size=world_size, **options) for r in range(world_size)]
    parts = [list(sampler) for sampler in ranks]
    assert [len(p) for p in parts] == [len(sampler) for sampler in ranks]
    for step, batch in enumerate(whole):
        assert list(chain(*(p[step] for p in parts if step < len(p)))) == batch
        if len(batch) == size:
            assert {len(p[step]) for p in parts} == {share}
    seen = list(chain(*whole))
    assert len(seen) == len(set(seen)) == (n // size * size if drop_last else n)
    if not shuffle:
        assert seen == list(range(len(seen)))


def test_impossible_samplers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"batch size \(5\) must be a multiple of the 2 ranks"):
        KeyedBatchSampler(10, 5, 0, world_size=2)
    with pytest.raises(ValueError, match="rank 2 is not one of 2"):
        KeyedBatchSampler(10, 4, 0, rank=2, world_size=2)
    with pytest.raises(ValueError, match="step 4 of epoch 0 does not exist"):
        KeyedBatchSampler(12, 4, 0, step=4)


class Noisy(Dataset[torch.Tensor]):
    """Samples with randomness of their own, keyed by (seed, epoch, index)."""

    def __init__(self, seed: int, epoch: int) -> None:
        self.seed, self.epoch = seed, epoch

    def __getitem__(self, index: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(sample_seed(self.seed, self.epoch, index))
        return torch.cat([torch.tensor([float(index)]), torch.rand(2, generator=generator)])


def stream(first: tuple[int, int], workers: int, context: str | None, world_size: int = 1) -> list[torch.Tensor]:
    """Every global batch from (epoch, step) to the end of epoch 1."""
    batches = []
    for epoch in range(first[0], 2):
        step = first[1] if epoch == first[0] else 0
        loaders = [
            DataLoader(
                Noisy(7, epoch),
                batch_sampler=KeyedBatchSampler(50, 8, 7, rank=r, world_size=world_size, epoch=epoch, step=step),
                num_workers=workers,
                multiprocessing_context=context,
            )
            for r in range(world_size)
        ]
        batches += [torch.cat(parts) for parts in zip(*loaders, strict=True)]
    return batches


@pytest.mark.parametrize(
    ("start", "workers", "context", "world_size"),
    [
        ((0, 4), 0, None, 1),
        ((0, 4), 2, "fork", 1),
        ((1, 2), 2, "forkserver", 1),
        ((0, 4), 0, None, 2),
        ((0, 4), 0, None, 4),
    ],
)
def test_resuming_in_the_middle_of_an_epoch_is_exact(
    start: tuple[int, int], workers: int, context: str | None, world_size: int
) -> None:
    uninterrupted = stream((0, 0), 0, None)
    assert len(uninterrupted) == 12
    resumed = stream(start, workers, context, world_size)
    torch.testing.assert_close(resumed, uninterrupted[start[0] * 6 + start[1] :], rtol=0, atol=0)
