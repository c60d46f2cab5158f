"""Training, validation and test by a hash of each image: what an image is on depends on nothing but its own bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from configs.image_text import ImageSplits
from storage.shard_index import SPLITS

TRAIN, VALIDATION, TEST = (np.uint8(SPLITS.index(name)) for name in ("train", "validation", "test"))


def draw_sides(hashes: Sequence[str], splits: ImageSplits) -> NDArray[np.uint8]:
    """Return the side of each image, a position in SPLITS, by the SHA-256 of its bytes.

    Test takes the lower end of the range and validation the upper one, so that raising one share takes images from
    training alone.
    """
    drawn = np.array([_draw(value, splits.seed) for value in hashes])
    sides = np.full(len(hashes), TRAIN)
    sides[drawn >= 1 - splits.validation_share] = VALIDATION
    sides[drawn < splits.test_share] = TEST
    return sides


def _draw(value: str, seed: int) -> float:
    """Return a number in [0, 1) with 53 bits."""
    word = hashlib.sha256(f"{seed} {value}".encode()).digest()
    return (int.from_bytes(word[:8], "big") >> 11) / 2**53


def check_sides(digests: NDArray[np.uint64], sides: NDArray[np.uint8]) -> None:
    """Raise when equal images are on two sides; one digest (two words) and one side per image."""
    order = np.lexsort((sides, digests[:, 1], digests[:, 0]))
    same = (digests[order[1:]] == digests[order[:-1]]).all(axis=1)
    apart = same & (sides[order[1:]] != sides[order[:-1]])
    if apart.any():
        first = digests[order[1:]][apart][0]
        raise AssertionError(f"the image whose SHA-256 begins with {first[0]:016x}{first[1]:016x} is on two sides")
