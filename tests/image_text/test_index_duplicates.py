"""The search for near-duplicates finds what comparing each with each finds, whatever the buckets look like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.image_text import Duplicates
from tasks.image_text import duplicates
from tasks.image_text.duplicates import REASONS, judge_duplicates, near_pairs


def brute_pairs(hashes: np.ndarray, distance: int) -> set[tuple[int, int]]:
    near = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= distance
    return set(zip(*(axis.tolist() for axis in np.nonzero(np.triu(near, 1))), strict=True))


def unpacked(pairs: np.ndarray) -> list[tuple[int, int]]:
    return [(int(pair) & 0xFFFFFFFF, int(pair) >> 32) for pair in pairs]


def crowd(seed: int, centres: int, flips: int, count: int, free: int = 64) -> np.ndarray:
    """Different hashes around a few centres, which differ in `free` of the bits only."""
    random = np.random.default_rng(seed)
    words = random.integers(0, 2**64, centres, np.uint64)[random.integers(0, centres, count)]
    for _ in range(flips):
        words ^= np.uint64(1) << random.integers(0, free, count, np.uint64)
    return random.permutation(np.unique(words))


@pytest.mark.parametrize("distance", [0, 1, 3, 5, 8, 16])
@pytest.mark.parametrize("small", [1, 4, 1000])
def test_banding_finds_what_brute_force_finds(monkeypatch, distance, small):
    monkeypatch.setattr(duplicates, "SMALL", small)
    hashes = crowd(distance, centres=40, flips=distance // 2 + 1, count=400)
    pairs = unpacked(near_pairs(hashes, distance))
    assert set(pairs) == brute_pairs(hashes, distance)
    assert len(set(pairs)) == len(pairs)
    assert pairs == sorted(pairs, key=lambda pair: pair[::-1]), "by the later one, then the earlier one"


@pytest.mark.parametrize("free", [6, 10, 20])
def test_crowded_buckets_are_searched_as_well(monkeypatch, free):
    """All hashes agree in most bits, so that buckets are large and are divided again."""
    monkeypatch.setattr(duplicates, "SMALL", 1)
    hashes = crowd(1, centres=1, flips=5, count=300, free=free)
    assert set(unpacked(near_pairs(hashes, 3))) == brute_pairs(hashes, 3)


@settings(max_examples=60, deadline=None)
@given(
    hashes=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 255) | st.just(0), max_size=24),
    copies=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=4),
    distance=st.integers(0, 6),
)
def test_verdicts_are_those_of_going_through_the_images_one_by_one(hashes, copies, distance):
    contents = list(range(len(hashes)))
    for one, other in copies:
        if one < other < len(hashes):
            contents[other], hashes[other] = contents[one], hashes[one]
    digests = np.array([[7, c] for c in contents], np.uint64).reshape(-1, 2)
    words, sides = np.array(hashes, np.uint64), np.array([c % 3 for c in contents], np.uint8)
    for exact in ("exclude", "keep"):
        verdicts = judge_duplicates(digests, words, sides, Duplicates(exact=exact, distance=distance))
        assert [REASONS[code] for code in verdicts.reason] == one_by_one(contents, hashes, distance, exact)
        of = np.where(verdicts.of < 0, np.arange(len(words)), verdicts.of)
        assert (verdicts.distance == np.bitwise_count(words ^ words[of])).all()
        assert (verdicts.sides[verdicts.stays] == sides[verdicts.stays]).all(), "an image that stays keeps its side"
        together = judge_duplicates(digests, words, sides, Duplicates(exact=exact, near="keep", distance=distance))
        kept = np.flatnonzero(together.stays)
        for one in kept:
            for other in kept:
                near = hashes[one] and hashes[other] and (hashes[one] ^ hashes[other]).bit_count() <= distance
                if near or contents[one] == contents[other]:
                    assert together.sides[one] == together.sides[other]
        assert exact == "keep" or len({contents[k] for k in kept}) == len(kept)


def one_by_one(contents: list[int], hashes: list[int], distance: int, exact: str) -> list[str]:
    reasons: list[str] = []
    for i, (content, word) in enumerate(zip(contents, hashes, strict=True)):
        if content in contents[:i]:
            first = reasons[contents.index(content)]
            reasons.append(first or ("dup_exact" if exact == "exclude" else ""))
            continue
        stays = [hashes[k] for k in range(i) if not reasons[k]]
        near = word and any(other and (word ^ other).bit_count() <= distance for other in stays)
        reasons.append("dup_near" if near else "")
    return reasons


def test_too_many_pairs_end_in_a_sentence(monkeypatch):
    monkeypatch.setattr(duplicates, "PAIR_LIMIT", 1000)
    with pytest.raises(ValueError, match=r"lower duplicates\.distance"):
        near_pairs(np.arange(1, 200, dtype=np.uint64), 8)


def test_many_hashes_are_searched_in_little_time():
    """Not each with each: that would be 2 * 10**10 comparisons."""
    hashes = np.unique(np.random.default_rng(0).integers(0, 2**64, 200_000, np.uint64))
    planted = hashes[::1000] ^ np.uint64(0b1011 << 29)
    pairs = near_pairs(np.concatenate([hashes, planted]), 3)
    assert {(1000 * k, len(hashes) + k) for k in range(len(planted))} <= set(unpacked(pairs))
