"""Questions and answers as sequences of tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from configs.answering import AnswererDesign
from models.vision_language.answerer import AnswerBatch
from storage.question_set import Asked, QuestionSet
from tasks.text.tokens import Tokens, padded


@dataclass(frozen=True)
class Asking:
    """How questions and answers become tokens."""

    tokens: Tokens
    longest_question: int
    longest_answer: int

    @classmethod
    def of(cls, tokens: Tokens, design: AnswererDesign) -> Asking:
        """Return the way of a design."""
        return cls(tokens, design.longest_question, design.longest_answer)

    def question(self, text: str) -> list[int]:
        """Return begin and the question's tokens, of a long one the last."""
        return [self.tokens.begin, *self.tokens.ids(text)[-self.longest_question :]]

    def answer(self, text: str) -> list[int]:
        """Return the answer's tokens and its end, of a long one the first."""
        return [*self.tokens.ids(f" {text}"), self.tokens.end][: self.longest_answer]

    def lost(self, question: str) -> str:
        """Return the beginning of a question that is too long, which no model gets to see; empty of others."""
        return self.tokens.text(self.tokens.ids(question)[: -self.longest_question])

    def is_cut(self, asked: Asked) -> bool:
        """Say whether a question or an answer is too long."""
        return bool(self.lost(asked.question)) or len(self.tokens.ids(f" {asked.answer}")) + 1 > self.longest_answer

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return 1 + self.longest_question + self.longest_answer


@dataclass(frozen=True)
class AnswerSample:
    """Questions about an item, with their answers."""

    features: Tensor
    """(K, width) float16"""
    pairs: list[tuple[list[int], list[int]]]
    """Tokens of each question and of its answer."""
    count: int = 1
    """Questions that there are at least, with empty ones."""
    length: int = 0
    """Tokens to which each is padded at least."""


class Questions:
    """The questions of a split; of more than `most` some, evenly spaced.

    Attributes:
        asked: every question.
        places: of each sample the places of its questions: up to `at_once` about one item.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        asking: Asking,
        most: int | None = None,
        *,
        at_once: int = 1,
        fixed: bool = False,
    ) -> None:
        """Read the questions; `fixed`: all samples are padded to one shape, that of the largest that may be."""
        self.set = QuestionSet(folder)
        everything = self.set.asked(split)
        count = min(len(everything), most or len(everything))
        chosen = np.arange(count) * len(everything) // max(count, 1)
        self.asked = [everything[k] for k in chosen]
        self.places = together([one.item for one in self.asked], at_once)
        self.asking, self.split = asking, split
        self._shape = (at_once, asking.length) if fixed else (1, 0)

    def __len__(self) -> int:
        return len(self.places)

    def sample(self, index: int, seed: int) -> AnswerSample:
        """Return questions with what was seen of their item."""
        return self.seen(index, self.asked[self.places[index][0]].item)

    def seen(self, index: int, item: int) -> AnswerSample:
        """Return questions with what was seen of some item."""
        asked = [self.asked[place] for place in self.places[index]]
        pairs = [(self.asking.question(one.question), self.asking.answer(one.answer)) for one in asked]
        return AnswerSample(self.set.features(item), pairs, *self._shape)


def together(items: Sequence[int], at_once: int) -> list[list[int]]:
    """Return the places of equal items, up to `at_once` in a list.

    >>> together([7, 7, 8, 7], 2)
    [[0, 1], [3], [2]]
    """
    if at_once == 1:
        return [[place] for place in range(len(items))]
    by_item: dict[int, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        by_item[item].append(place)
    return [places[k : k + at_once] for places in by_item.values() for k in range(0, len(places), at_once)]


def collate(samples: Sequence[AnswerSample]) -> AnswerBatch:
    """Stack what was seen, pad sequences on the right, and add empty ones where an item has fewer than others."""
    count = max(max(sample.count, len(sample.pairs)) for sample in samples)
    pairs = [pair for sample in samples for pair in [*sample.pairs, *[([], [])] * (count - len(sample.pairs))]]
    tokens, attended = padded([[*question, *answer] for question, answer in pairs])
    wanted = max(sample.length for sample in samples)
    if wanted > tokens.shape[1]:
        more = (0, wanted - tokens.shape[1])
        tokens, attended = torch.nn.functional.pad(tokens, more), torch.nn.functional.pad(attended, more)
    heads = torch.tensor([len(question) for question, _ in pairs])
    learned = attended & (torch.arange(tokens.shape[1]) >= heads[:, None])
    return AnswerBatch(torch.stack([sample.features for sample in samples]), tokens, attended, learned)
