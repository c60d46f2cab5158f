"""The order of samples is part of what a checkpoint means: it stays the same in later versions."""

from __future__ import annotations

import numpy as np
import pytest

from storage.sampling import BlockPermutation, KeyedBatchSampler, KeyedPermutation, _mix, sample_seed


def test_words_are_mixed_as_splitmix64_does() -> None:
    """The first values of its reference implementation (Vigna) for the seed 1234567."""
    state, found = 1234567, []
    for _ in range(3):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        found.append(_mix(state))
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert _mix(np.array([1234567 + 0x9E3779B97F4A7C15], np.uint64)).tolist() == found[:1]


def test_the_seed_of_a_sample_is_a_chain_of_splitmix64() -> None:
    def plain(*parts: int) -> int:
        word = 0
        for part in parts:
            word = (word + part + 0x9E3779B97F4A7C15) % 2**64
            word = (word ^ word // 2**30) * 0xBF58476D1CE4E5B9 % 2**64
            word = (word ^ word // 2**27) * 0x94D049BB133111EB % 2**64
            word ^= word // 2**31
        return word // 2

    for parts in [(0, 0, 0), (1, 2, 3), (2**63, 7, 2**40)]:
        assert sample_seed(*parts) == plain(*parts)


def test_orders_are_those_of_earlier_versions() -> None:
    def order(permutation: KeyedPermutation | BlockPermutation) -> list[int]:
        return permutation.take(np.arange(len(permutation))).tolist()

    assert [order(KeyedPermutation(n, 5, 2)) for n in (1, 2, 3)] == [[0], [0, 1], [1, 2, 0]]
    assert order(KeyedPermutation(17, 5, 2)) == [0, 5, 11, 7, 3, 10, 12, 16, 6, 1, 8, 9, 4, 2, 13, 14, 15]
    huge = KeyedPermutation(10**9, 1, 0)
    assert [huge[k * 10**8] for k in range(4)] == [144954619, 732154627, 586731673, 730489693]
    assert order(BlockPermutation(23, 1, 2, 3, 4)) == [
        1, 7, 0, 18, 14, 13, 22, 17, 16, 9, 8, 15, 11, 4, 19, 12, 20, 10, 6, 21, 5, 3, 2,
    ]  # fmt: skip
    assert order(BlockPermutation(5000, 1, 2))[:6] == BlockPermutation(5000, 1, 2, 256, 16).take(np.arange(6)).tolist()


@pytest.mark.parametrize("n", [1, 2, 3, 10, 64, 65])
def test_single_elements_are_those_of_the_whole_order(n: int) -> None:
    for permutation in (KeyedPermutation(n, 3, 1), BlockPermutation(n, 3, 1, 4, 2)):
        assert [permutation[k] for k in range(n)] == permutation.take(np.arange(n)).tolist()
        for beyond in (-1, n):
            with pytest.raises(IndexError, match=f"is outside a permutation of {n}"):
                permutation[beyond]


def test_sizes_below_one_are_refused_and_one_is_not() -> None:
    assert [KeyedPermutation(1, 0, 0)[0], BlockPermutation(1, 0, 0, 1, 1)[0]] == [0, 0]
    with pytest.raises(ValueError, match="at least one element, not 0"):
        KeyedPermutation(0, 0, 0)
    for sizes in [(0, 1, 1), (1, 0, 1), (1, 1, 0)]:
        with pytest.raises(ValueError, match="must be at least 1"):
            BlockPermutation(sizes[0], 0, 0, *sizes[1:])


def test_nothing_is_left_at_the_end_of_an_epoch_for_any_rank() -> None:
    """Nine samples in batches of four: the last batch has one sample, which is the first rank's."""
    for rank, steps in ((0, 3), (1, 2)):
        sampler = KeyedBatchSampler(9, 4, 0, rank=rank, world_size=2, drop_last=False)
        assert [len(sampler), len(list(sampler))] == [steps, steps]
        for step in (1, 2, 3):
            sampler.seek(0, step)
            assert len(sampler) == len(list(sampler)) == max(steps - step, 0)


def test_the_last_batch_is_what_is_left_or_left_out() -> None:
    kept, dropped = (KeyedBatchSampler(10, 4, 0, drop_last=drop) for drop in (False, True))
    assert [(s.steps_per_epoch, sum(map(len, s))) for s in (kept, dropped)] == [(3, 10), (2, 8)]
    assert KeyedBatchSampler(8, 4, 0, drop_last=False).steps_per_epoch == 2
    in_order = KeyedBatchSampler(10, 4, 0, shuffle=False, drop_last=False)
    assert list(in_order) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_samplers_take_what_just_fits() -> None:
    assert len(KeyedBatchSampler(4, 4, 0)) == 1
    assert len(KeyedBatchSampler(1, 4, 0, drop_last=False)) == 1
    assert list(KeyedBatchSampler(1, 1, 0, block=1, window=1)) == [[0]]
    assert len(KeyedBatchSampler(8, 4, 0, step=2)) == 0
    for wrong in ({"n": 3}, {"n": 0, "drop_last": False}, {"batch_size": 0}, {"epoch": -1}, {"step": -1}, {"step": 3}):
        with pytest.raises(ValueError, match=r"do not fill|must be a multiple|does not exist"):
            KeyedBatchSampler(**{"n": 8, "batch_size": 4, "seed": 0} | wrong)
    for wrong in ({"block": 0}, {"block": 2, "window": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            KeyedBatchSampler(8, 4, 0, **wrong)
    for rank in (-1, 2):
        with pytest.raises(ValueError, match=f"rank {rank} is not one of 2 ranks"):
            KeyedBatchSampler(8, 4, 0, rank=rank, world_size=2)
