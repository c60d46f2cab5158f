"""How right an answer is: exact match and token F1 by SQuAD's rules (arXiv 1606.05250), and numbers as numbers."""

from __future__ import annotations

import re
import string
from collections import Counter
from dataclasses import dataclass

NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
NUMBERS = {word: float(value) for value, word in enumerate(NUMBER_WORDS)} | {"no": 0.0, "none": 0.0}
ARTICLES = re.compile(r"\b(a|an|the)\b")
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
MINUS = re.compile(r"\bminus (?=\d)")
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?|[-+]?\.\d+")
KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (  # a question is of the first kind that it fits
    ("count", re.compile(r"^how many\b|\bnumber of\b|\bcount\b")),
    ("number", re.compile(r"\bin (degrees celsius|metres per second|hectopascals)\b")),
    ("colour", re.compile(r"\bcolou?r\b")),
    ("position", re.compile(r"^where\b|\bposition\b|\blocated\b")),
    ("shape", re.compile(r"\bshape\b")),
    ("trend", re.compile(r"\brise or fall\b|\bfall or rise\b")),
    ("relation", re.compile(r"\b(left|right|above|below|higher|lower|between|next to|warmer|windier|wetter)\b")),
    ("pattern", re.compile(r"\bpattern\b|\bplain, striped\b")),
    ("size", re.compile(r"\b(what|which) size\b|\bhow (big|large|small)\b|\bsmall or large\b")),
    ("reading", re.compile(r"\b(digit|written|word|text|say|letter|number|brand)\b")),
)
OTHER = "other"


def normalised(text: str) -> str:
    """Return a text in lower case without punctuation, articles and superfluous white space, in SQuAD's order.

    >>> normalised("The  Star, top-left!")
    'star topleft'
    """
    return " ".join(ARTICLES.sub(" ", text.lower().translate(WITHOUT_PUNCTUATION)).split())


def exact_match(answer: str, truth: str) -> bool:
    """Say whether normalised texts are equal. -5 and 5, 3.5 and 35 are equal then: see `numeric_match`."""
    return normalised(answer) == normalised(truth)


def token_f1(answer: str, truth: str) -> float:
    """Return the harmonic mean of precision and recall of normalised words."""
    said, wanted = normalised(answer).split(), normalised(truth).split()
    if not said or not wanted:
        return float(said == wanted)
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted))


def number_of(text: str) -> float | None:
    """Return the number that a text is, in digits or as a word up to twenty; None where it is no single number.

    >>> number_of("Three"), number_of("-1,200.5"), number_of("3 stars"), number_of("minus 5"), number_of("no idea")
    (3.0, -1200.5, 3.0, -5.0, None)
    """
    words = MINUS.sub("-", text.strip().rstrip(".").lower())
    if words in NUMBERS:
        return NUMBERS[words]
    found = NUMBER.findall(words)
    return float(found[0].replace(",", "")) if len(found) == 1 else None


def numeric_match(answer: str, truth: str) -> bool | None:
    """Say whether an answer is the true number; None where the truth is none."""
    wanted = number_of(truth)
    return None if wanted is None else number_of(answer) == wanted


def kind_of(question: str, answer: str) -> str:
    """Return of which kind a question is, by its words; whatever is answered by yes or no is `yes_no`."""
    words = question.strip().lower()
    if normalised(answer) in ("yes", "no"):
        return "yes_no"
    return next((kind for kind, pattern in KINDS if pattern.search(words)), OTHER)


@dataclass(frozen=True)
class Scored:
    """An answer and how right it is."""

    exact: bool
    f1: float
    numeric: bool | None

    @classmethod
    def of(cls, answer: str, truth: str) -> Scored:
        """Compare an answer with the truth."""
        return cls(exact_match(answer, truth), token_f1(answer, truth), numeric_match(answer, truth))
