"""Scores of generated texts against reference texts, of the corpus and of each sample.

BLEU: Papineni et al. 2002; chrF: Popović 2015; ROUGE-L: Lin 2004; CIDEr-D: Vedantam et al. 2015. Likeness of words does
not show that the numbers are right: see `checks.py` for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from tasks.text.cider import cider_d, tokens

Pair = tuple[str, Sequence[str]]
"""A generated text and one or more references; their number may differ between samples."""


@dataclass(frozen=True, slots=True)
class TextScore:
    """A score of all samples together and of each on its own."""

    corpus: float
    samples: NDArray[np.float64]
    """(samples,); their mean is `corpus` only for ROUGE-L and CIDEr-D."""
    signature: str
    """How it was computed, to be reported with it."""


def text_scores(pairs: Sequence[Pair]) -> dict[str, TextScore]:
    """Return every score by name: BLEU and chrF of 100, ROUGE-L of 1, CIDEr-D of 10.

    Raises:
        ValueError: there is no pair, or one without a reference.
    """
    return {"BLEU": bleu(pairs), "chrF": chrf(pairs), "ROUGE-L": rouge_l(pairs), "CIDEr-D": cider(pairs)}


def bleu(pairs: Sequence[Pair]) -> TextScore:
    """Return sacrebleu's BLEU-4, 0 to 100; that of a sample leaves out orders it is too short for."""
    return _sacrebleu(BLEU(), BLEU(effective_order=True), pairs)


def chrf(pairs: Sequence[Pair]) -> TextScore:
    """Return sacrebleu's chrF2 of character 6-grams, 0 to 100."""
    return _sacrebleu(CHRF(), CHRF(), pairs)


def rouge_l(pairs: Sequence[Pair]) -> TextScore:
    """Return the F-measure of the longest common subsequence of words, 0 to 1, the best over the references."""
    _check(pairs)
    scorer = RougeScorer(["rougeL"])
    samples = np.array([scorer.score_multi(references, text)["rougeL"].fmeasure for text, references in pairs])
    return TextScore(float(samples.mean()), samples, f"rougeL|F1|stem:no|refs:max|rouge-score:{version('rouge-score')}")


def cider(pairs: Sequence[Pair]) -> TextScore:
    """Return CIDEr-D, 0 to 10, with the document frequency of these references."""
    _check(pairs)
    samples = cider_d(
        [tokens(text) for text, _ in pairs], [[tokens(text) for text in references] for _, references in pairs]
    )
    return TextScore(float(samples.mean()), samples, "CIDEr-D|n:4|sigma:6|df:references|tok:words")


def _sacrebleu(corpus: BLEU | CHRF, sentence: BLEU | CHRF, pairs: Sequence[Pair]) -> TextScore:
    _check(pairs)
    texts = [text for text, _ in pairs]
    streams = [list(stream) for stream in zip_longest(*(references for _, references in pairs))]
    score = corpus.corpus_score(texts, streams).score
    samples = np.array([sentence.sentence_score(text, list(references)).score for text, references in pairs])
    return TextScore(score, samples, str(corpus.get_signature()))


def _check(pairs: Sequence[Pair]) -> None:
    if not pairs:
        raise ValueError("there are no texts to score; give at least one generated text with its references")
    for place, (_, references) in enumerate(pairs):
        if isinstance(references, str) or not references:
            raise ValueError(f"sample {place} has no list of reference texts; leave it out or give it one")
