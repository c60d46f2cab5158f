"""Questions about windows, each with one right, short answer; what is within noise is not asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tasks.weather_questions.facts import HALVES, QUARTERS, Floats, Quantity, columns_of, named
from tasks.weather_questions.words import WORDS, Forms

LEVELS = (0.25, 0.5, 0.75)
"""Quantiles of the quarters of training windows at which quarters are counted, rounded to whole numbers."""
NEAR_BORDER = 0.05
"""Numbers are not asked for so near, in steps of what they are rounded to, to where two of them meet."""
OPPOSITE = (("north", "south"), ("west", "east"))
assert {half for pair in OPPOSITE for half in pair} == set(HALVES)


@dataclass(frozen=True)
class Question:
    """A question about a window and its only right answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Climate:
    """What is usual of a quantity, from training windows alone; NaN and empty where nothing is known."""

    mean: float
    levels: tuple[int, ...]

    @classmethod
    def of(cls, training: Floats) -> Climate:
        """Return what the facts (N, F) of training windows have in common."""
        means, quarters = training[:, columns_of(["mean"])], training[:, columns_of(QUARTERS)]
        known = [part[np.isfinite(part)] for part in (means, quarters)]
        mean = float(known[0].mean()) if known[0].size else float("nan")
        levels = np.quantile(known[1], LEVELS).tolist() if known[1].size else []
        return cls(mean, tuple(sorted({round(level) for level in levels})))


def questions_of(
    facts: Mapping[Quantity, Floats], climates: Mapping[Quantity, Climate], most: int, seed: Sequence[int]
) -> list[Question]:
    """Return up to `most` of the questions that a window's facts (F,) allow, drawn by the seed."""
    random = np.random.default_rng(seed)
    asked = [
        question
        for quantity, values in facts.items()
        for kind in KINDS
        for question in kind(quantity, named(values), climates[quantity], random)
    ]
    kept = sorted(random.permutation(len(asked))[:most])
    return [asked[k] for k in kept]


Found = Iterator[Question]


def _positions(quantity: Quantity, facts: Mapping[str, float], climate: Climate, random: np.random.Generator) -> Found:
    """Ask for the quarters with the highest and the lowest mean."""
    words = WORDS[quantity.name]
    for forms, sign in ((words.most, 1), (words.least, -1)):
        order = sorted(QUARTERS, key=lambda part: -sign * facts[part])
        known = not any(np.isnan(facts[part]) for part in QUARTERS)
        if known and _apart(quantity, facts[order[0]], facts[order[1]]):
            yield Question(_form(forms, random), order[0])


def _relations(quantity: Quantity, facts: Mapping[str, float], climate: Climate, random: np.random.Generator) -> Found:
    """Ask which of two opposite halves has more."""
    for pair in OPPOSITE:
        a, b = (pair[k] for k in random.permutation(2))
        if _apart(quantity, facts[a], facts[b]):
            form = _form(WORDS[quantity.name].which, random)
            yield Question(form.format(a=a, b=b), max(pair, key=lambda half: facts[half]))


def _comparisons(
    quantity: Quantity, facts: Mapping[str, float], climate: Climate, random: np.random.Generator
) -> Found:
    """Ask whether one quarter, or half, has more than another; yes and no are balanced by their order."""
    quarters = list(combinations(QUARTERS, 2))
    for pair in (quarters[int(random.integers(len(quarters)))], OPPOSITE[int(random.integers(2))]):
        a, b = (pair[k] for k in random.permutation(2))
        if _apart(quantity, facts[a], facts[b]):
            form = _form(WORDS[quantity.name].whether, random)
            yield Question(form.format(a=a, b=b), _yes(facts[a] > facts[b]))


def _usual(quantity: Quantity, facts: Mapping[str, float], climate: Climate, random: np.random.Generator) -> Found:
    """Ask whether the mean lies above that of the training period."""
    if _apart(quantity, facts["mean"], climate.mean):
        yield Question(_form(WORDS[quantity.name].usual, random), _yes(facts["mean"] > climate.mean))


def _trend(quantity: Quantity, facts: Mapping[str, float], climate: Climate, random: np.random.Generator) -> Found:
    """Ask how it goes on at the centre."""
    if WORDS[quantity.name].trend and _apart(quantity, facts["first"], facts["last"]):
        answer = "rise" if facts["last"] > facts["first"] else "fall"
        yield Question(_form(WORDS[quantity.name].trend, random), answer)


def _count(quantity: Quantity, facts: Mapping[str, float], climate: Climate, random: np.random.Generator) -> Found:
    """Ask how many quarters have more than one of the climate's levels."""
    if not WORDS[quantity.name].count or not climate.levels:
        return
    level = climate.levels[int(random.integers(len(climate.levels)))]
    if all(_apart(quantity, facts[part], level) for part in QUARTERS):
        form = _form(WORDS[quantity.name].count, random)
        yield Question(form.format(level=_number(level)), str(sum(facts[part] > level for part in QUARTERS)))


def _extremes(quantity: Quantity, facts: Mapping[str, float], climate: Climate, random: np.random.Generator) -> Found:
    """Ask for the highest and the lowest value, rounded."""
    for fact, forms in WORDS[quantity.name].numbers.items():
        assert quantity.nearest is not None, "numbers are rounded"
        steps = facts[fact] / quantity.nearest
        if np.isfinite(steps) and abs(steps % 1 - 0.5) >= NEAR_BORDER:
            form = _form(forms, random).format(nearest=quantity.nearest)
            yield Question(form, _number(round(steps) * quantity.nearest))


KINDS = (_positions, _relations, _comparisons, _usual, _trend, _count, _extremes)


def _apart(quantity: Quantity, first: float, second: float) -> bool:
    """Say whether two values differ by more than noise; never where one is not known."""
    return abs(first - second) >= quantity.margin


def _form(forms: Forms, random: np.random.Generator) -> str:
    return forms[int(random.integers(len(forms)))]


def _yes(true: bool) -> str:
    return "yes" if true else "no"


def _number(value: int) -> str:
    """Return a number in words that scores read: SQuAD's rules drop the sign of -5."""
    return f"minus {-value}" if value < 0 else str(value)
