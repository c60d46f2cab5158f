"""Images that are there more than once: of equal bytes, and of perceptual hashes that differ in few bits.

Images are gone through in order. One of equal bytes, or within the distance of an earlier image that stays, is left
out; so images that stay are all further apart, and what comes later never changes what was decided before. Where
near-duplicates are kept, an image goes to the side of the first earlier image near it; one that is near images of two
sides would leak from one to the other, and is left out. A hash of 0 means that there is none: it is near nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from configs.image_text import Duplicates

STAYS, EXACT, NEAR, TWO_SIDES = (np.uint8(code) for code in range(4))
REASONS = ("", "dup_exact", "dup_near", "dup_two_sides")
"""Why an image is left out, by code."""
SMALL = 256
"""So many hashes per way to divide them are compared each with each: that is quicker than dividing them further."""
LEVELS = 2
"""How often buckets are divided; what is still large then is compared each with each all the same."""
PAIR_LIMIT = 50_000_000
"""Pairs of near hashes that are held in memory, eight bytes each."""
SLICE = 1 << 20

Positions = NDArray[np.int64]
Hashes = NDArray[np.uint64]


@dataclass(slots=True)
class Verdicts:
    """What becomes of every image."""

    reason: NDArray[np.uint8]
    """A position in REASONS."""
    of: Positions
    """The earlier image that it is a duplicate of, which itself stays; -1 for an image that stays."""
    distance: NDArray[np.uint8]
    """Bits in which the two hashes differ."""
    sides: NDArray[np.uint8]

    @property
    def stays(self) -> NDArray[np.bool_]:
        """Which images stay."""
        return self.reason == STAYS


def judge_duplicates(digests: Hashes, phashes: Hashes, sides: NDArray[np.uint8], rules: Duplicates) -> Verdicts:
    """Decide about images in order, given what they are (two words each), their hashes and the sides they drew."""
    everyone = np.arange(len(phashes))
    original = first_of_equal(digests[:, 1], digests[:, 0])
    hashed = np.flatnonzero((original == everyone) & (phashes != 0))
    twin = hashed[first_of_equal(phashes[hashed])]
    values = hashed[twin == hashed]
    verdicts = Verdicts(
        np.full(len(everyone), STAYS), np.full(len(everyone), -1), np.zeros(len(everyone), np.uint8), sides.copy()
    )
    pairs = near_pairs(phashes[values], rules.distance)
    if rules.near == "exclude":
        _exclude_near(verdicts, values, pairs)
    else:
        _keep_together(verdicts, values, pairs)
    verdicts.distance[values] = np.bitwise_count(phashes[values] ^ phashes[verdicts.of[values]])
    verdicts.distance[verdicts.of < 0] = 0
    _follow(verdicts, hashed, twin, NEAR if rules.near == "exclude" else STAYS)
    _follow(verdicts, everyone, original, EXACT if rules.exact == "exclude" else STAYS)
    return verdicts


def first_of_equal(*keys: NDArray[np.uint64]) -> Positions:
    """Return for each element the position of the first one with the same keys."""
    order = np.lexsort(keys)
    fresh = np.zeros(len(order), bool)
    fresh[:1] = True
    for key in keys:
        fresh[1:] |= key[order[1:]] != key[order[:-1]]
    firsts = np.empty(len(order), np.int64)
    firsts[order] = order[fresh][np.cumsum(fresh) - 1]
    return firsts


def _exclude_near(verdicts: Verdicts, values: Positions, pairs: Hashes) -> None:
    """Leave out images near an earlier one that stays; `pairs` are positions in `values`."""
    stays = np.ones(len(values), bool)
    of = np.full(len(values), -1)
    for earlier, later in _each(pairs):
        if stays[later] and stays[earlier]:
            stays[later], of[later] = False, earlier
    verdicts.reason[values[~stays]] = NEAR
    verdicts.of[values[~stays]] = values[of[~stays]]


def _keep_together(verdicts: Verdicts, values: Positions, pairs: Hashes) -> None:
    """Give near images the same side, and leave out those that are near images of two sides."""
    sides, stays = verdicts.sides[values], np.ones(len(values), bool)
    of = np.full(len(values), -1)
    for earlier, later in _each(pairs):
        if stays[earlier] and of[later] < 0:
            of[later], sides[later] = earlier, sides[earlier]
        elif stays[earlier] and sides[earlier] != sides[later]:
            stays[later] = False
    verdicts.sides[values] = sides
    verdicts.reason[values[~stays]] = TWO_SIDES
    verdicts.of[values[~stays]] = values[of[~stays]]


def _follow(verdicts: Verdicts, copies: Positions, originals: Positions, reason: np.uint8) -> None:
    """Let copies share the fate of their originals, or leave them out for a reason where these stay."""
    later = copies != originals
    copies, originals = copies[later], originals[later]
    for field in (verdicts.reason, verdicts.of, verdicts.distance, verdicts.sides):
        field[copies] = field[originals]
    if reason != STAYS:
        fresh = verdicts.reason[originals] == STAYS
        verdicts.reason[copies[fresh]] = reason
        verdicts.of[copies[fresh]] = originals[fresh]


def _each(pairs: Hashes) -> Iterator[tuple[int, int]]:
    """Yield (earlier, later) of packed pairs, without a list of them all."""
    for start in range(0, len(pairs), SLICE):
        part = pairs[start : start + SLICE]
        yield from zip((part & 0xFFFFFFFF).tolist(), (part >> 32).tolist(), strict=True)


def near_pairs(hashes: Hashes, distance: int) -> Hashes:
    """Return every two of these different hashes that differ in at most `distance` bits.

    A pair is `later << 32 | earlier`, positions among the hashes; they are sorted by later, then earlier.
    """
    found: list[Hashes] = []
    size = 0
    for one, other in _search(hashes, np.arange(len(hashes)), distance, LEVELS):
        low, high = np.minimum(one, other).astype(np.uint64), np.maximum(one, other).astype(np.uint64)
        found.append(high << np.uint64(32) | low)
        size += len(low)
        if size > PAIR_LIMIT:
            found = [np.unique(np.concatenate(found))]
            size = len(found[0])
            if size > PAIR_LIMIT // 2:
                raise ValueError(
                    f"more than {size:,} pairs of images differ in at most {distance} bits of their perceptual hashes; "
                    "lower duplicates.distance"
                )
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.uint64)


def _search(hashes: Hashes, members: Positions, distance: int, levels: int) -> Iterator[tuple[Positions, Positions]]:
    """Yield positions of near hashes among `members`; some more than once, none is missed.

    The bits in which members vary make `distance + 2` bands; two hashes within the distance agree in two bands at
    least. For every two bands, members that agree in both form a bucket. Within small buckets each is compared with
    each; large ones, of images that look alike, are divided again by the bits that vary there.
    """
    bands = np.array_split(_varying(hashes[members]), distance + 2)
    ways = list(combinations(bands, 2))
    limit = SMALL * len(ways)
    if not levels or len(members) <= limit or not len(bands[-1]):
        yield from _compare(hashes, members, np.array([len(members)]), distance)
        return
    for two in ways:
        key = hashes[members] & np.bitwise_or.reduce(np.uint64(1) << np.concatenate(two))
        order = np.argsort(key, kind="stable")
        starts = np.flatnonzero(np.diff(key[order], prepend=~key[order[:1]]))
        lengths = np.diff(starts, append=len(order))
        ordered, small = members[order], lengths <= limit
        yield from _compare(hashes, ordered[np.repeat(small, lengths)], lengths[small], distance)
        for start, length in zip(starts[~small], lengths[~small], strict=True):
            yield from _search(hashes, ordered[start : start + length], distance, levels - 1)


def _varying(words: Hashes) -> Hashes:
    """Return the positions of the bits that are not the same in all words."""
    mask = np.bitwise_or.reduce(words ^ words[:1]) if len(words) else np.uint64(0)
    positions = np.arange(64, dtype=np.uint64)
    return positions[(mask >> positions) & np.uint64(1) == 1]


def _compare(
    hashes: Hashes, members: Positions, lengths: Positions, distance: int
) -> Iterator[tuple[Positions, Positions]]:
    """Compare each with each inside consecutive buckets of these lengths; yield those within the distance."""
    words = hashes[members]
    rest = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(members))
    active = np.flatnonzero(rest > 1)
    step = 1
    while len(active):
        near = active[np.bitwise_count(words[active] ^ words[active + step]) <= distance]
        if len(near):
            yield members[near], members[near + step]
        step += 1
        active = active[rest[active] > step]
