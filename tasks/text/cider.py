"""CIDEr-D: consensus of n-grams, weighted by how rare they are in the references (Vedantam et al. 2015)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

ORDERS = 4
"""n-grams of 1 to 4 words."""

SIGMA = 6.0
"""Width of the penalty on differences in length, in words."""

Tokens = Sequence[str]

_TOKEN = re.compile(r"(?<!\w)[-−]\d+(?:[.,]\d+)*|\d+(?:[.,]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*|[°%]")


def tokens(text: str) -> list[str]:
    """Return lower-case words and numbers with their sign; punctuation is dropped as the COCO evaluation does."""
    return _TOKEN.findall(text.lower())


def cider_d(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> NDArray[np.float64]:
    """Return the CIDEr-D of each sample, 0 to 10; the score of the corpus is their mean.

    The same as pycocoevalcap 1.2, which takes the number of 2-grams for the length. Rarity is counted over the samples
    given here, so scores of different sets do not compare, and a set of one sample scores 0.
    """
    frequency = Counter(gram for texts in references for gram in {gram for text in texts for gram in _grams(text)})
    samples = np.log(len(references))
    idf = {gram: samples - np.log(count) for gram, count in frequency.items()}
    return np.array(
        [
            10 * np.mean([_similarity(hypothesis, text, idf, samples) for text in texts])
            for hypothesis, texts in zip(hypotheses, references, strict=True)
        ]
    )


def _grams(text: Tokens) -> Counter[tuple[str, ...]]:
    """Count the n-grams of all orders."""
    return Counter(tuple(text[start : start + n]) for n in range(1, ORDERS + 1) for start in range(len(text) - n + 1))


def _similarity(hypothesis: Tokens, text: Tokens, idf: dict[tuple[str, ...], float], rarest: float) -> float:
    """Clipped cosine, averaged over the orders, with the penalty on length; n-grams in no reference are `rarest`."""
    ours, theirs = _grams(hypothesis), _grams(text)
    grams = list(ours | theirs)
    order = np.array([len(gram) for gram in grams])
    weight = np.array([idf.get(gram, rarest) for gram in grams])
    a, b = (weight * np.array([counts[gram] for gram in grams]) for counts in (ours, theirs))

    def by_order(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(order, values, ORDERS + 1)[1:].astype(np.float64)

    if not grams:
        return 0.0
    norms = np.sqrt(by_order(a * a) * by_order(b * b))
    cosine = np.divide(by_order(np.minimum(a, b) * b), norms, out=np.zeros(ORDERS), where=norms > 0)
    difference = len(list(pairwise(hypothesis))) - len(list(pairwise(text)))
    return float(cosine.mean() * np.exp(-(difference**2) / (2 * SIGMA**2)))
