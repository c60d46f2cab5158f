"""Questions and answers as sequences of tokens."""

from __future__ import annotations

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
    fixed: bool = False
    """Whether all sequences are padded to the longest that there may be."""

    @classmethod
    def of(cls, tokens: Tokens, design: AnswererDesign, fixed: bool = False) -> Asking:
        """Return the way of a design."""
        return cls(tokens, design.longest_question, design.longest_answer, fixed)

    def question(self, text: str) -> list[int]:
        """Return begin and the question's tokens, of a long one the last."""
        return [self.tokens.begin, *self.tokens.ids(text)[-self.longest_question :]]

    def answer(self, text: str) -> list[int]:
        """Return the answer's tokens and its end, of a long one the first."""
        return [*self.tokens.ids(f" {text}"), self.tokens.end][: self.longest_answer]

    def is_cut(self, asked: Asked) -> bool:
        """Say whether a question or an answer is too long."""
        too_long = len(self.tokens.ids(asked.question)) > self.longest_question
        return too_long or len(self.tokens.ids(f" {asked.answer}")) + 1 > self.longest_answer

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return 1 + self.longest_question + self.longest_answer


@dataclass(frozen=True)
class AnswerSample:
    """A question about an item, with its answer."""

    features: Tensor
    """(K, width) float16"""
    question: list[int]
    answer: list[int]
    length: int
    """Tokens to which the sequence is padded at least."""


class Questions:
    """The questions of a split; of more than `most` some, evenly spaced."""

    def __init__(self, folder: Path, split: str, asking: Asking, most: int | None = None) -> None:
        self.set = QuestionSet(folder)
        everything = self.set.asked(split)
        count = min(len(everything), most or len(everything))
        chosen = np.arange(count) * len(everything) // max(count, 1)
        self.asked = [everything[k] for k in chosen]
        self.asking, self.split = asking, split

    def __len__(self) -> int:
        return len(self.asked)

    def sample(self, index: int, seed: int) -> AnswerSample:
        """Return a question with what was seen of its item."""
        return self.seen(index, self.asked[index].item)

    def seen(self, index: int, item: int) -> AnswerSample:
        """Return a question with what was seen of some item."""
        asked, asking = self.asked[index], self.asking
        length = asking.length if asking.fixed else 0
        return AnswerSample(
            self.set.features(item), asking.question(asked.question), asking.answer(asked.answer), length
        )


def collate(samples: Sequence[AnswerSample]) -> AnswerBatch:
    """Stack what was seen and pad sequences on the right."""
    rows = [[*sample.question, *sample.answer] for sample in samples]
    tokens, attended = padded(rows)
    wanted = max(sample.length for sample in samples)
    if wanted > tokens.shape[1]:
        more = (0, wanted - tokens.shape[1])
        tokens, attended = torch.nn.functional.pad(tokens, more), torch.nn.functional.pad(attended, more)
    heads = torch.tensor([len(sample.question) for sample in samples])
    learned = attended & (torch.arange(tokens.shape[1]) >= heads[:, None])
    return AnswerBatch(torch.stack([sample.features for sample in samples]), tokens, attended, learned)
