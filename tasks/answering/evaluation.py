"""How good an answerer is: answers on the test split, against what would be answered without looking."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from configs.answering import AnswerEvaluation
from models.language.trm_lm import TrmLM
from storage.question_set import Asked
from tasks.answering.objective import Shuffled, all_right
from tasks.answering.released import AnswererRelease
from tasks.answering.samples import Questions, collate
from tasks.answering.scores import Scored, kind_of, normalised
from tasks.answering.writing import Writing, answers
from tasks.intervals import Sums, paired_bootstrap

BATCH = 64
AT_ONCE = 8
"""Questions about an item that are read after one copy of its tokens, where the whole answer is known."""
ALL = "all"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answered:
    """Answers to the questions of a split."""

    asked: Sequence[Asked]
    answers: Sequence[str]
    scores: Sequence[Scored]

    @classmethod
    def of(cls, asked: Sequence[Asked], answers: Sequence[str]) -> Answered:
        """Score answers."""
        scores = [Scored.of(answer, one.answer) for one, answer in zip(asked, answers, strict=True)]
        return cls(asked, answers, scores)

    def exact(self) -> Floats:
        """Return (N,): 1 where an answer is right."""
        return np.array([score.exact for score in self.scores], dtype=np.float64)


class Majority:
    """Answers without looking or reading: to each kind of question the most frequent answer of the training split."""

    def __init__(self, training: Sequence[Asked]) -> None:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for one in training:
            for kind in (kind_of(one.question, one.answer), ALL):
                counts[kind][normalised(one.answer)] += 1
        self._answers = {kind: min(c.items(), key=lambda item: (-item[1], item[0]))[0] for kind, c in counts.items()}

    def answer(self, asked: Asked) -> str:
        """Return the answer to a question of this kind."""
        return self._answers.get(kind_of(asked.question, asked.answer), self._answers[ALL])


def answer_questions(
    release: AnswererRelease,
    questions: Questions,
    evaluation: AnswerEvaluation,
    progress: Callable[[int, int], None],
    *,
    shuffled: bool = False,
) -> Answered:
    """Let a model answer the questions; `shuffled`: each about another image than its own."""
    source = Shuffled(questions, evaluation.seed) if shuffled else questions
    writing = Writing(evaluation.max_new_tokens)
    texts: list[str] = []
    for first in range(0, len(questions), BATCH):
        places = range(first, min(first + BATCH, len(questions)))
        features = torch.stack([source.sample(k, 0).features for k in places])
        asked = [questions.asked[k].question for k in places]
        texts += answers(release.network, questions.asking, features, asked, writing)
        progress(places.stop, len(questions))
    return Answered.of(questions.asked, texts)


@torch.no_grad()
def exact_by_depth(release: AnswererRelease, questions: Questions, depths: Sequence[int]) -> dict[int, float]:
    """Return the share of answers that greedy decoding gets right to the token after so many steps."""
    if not isinstance(release.network.language, TrmLM):
        return {}
    count = len(questions.asked)
    grouped = Questions(questions.set.folder, questions.split, questions.asking, count, at_once=AT_ONCE)
    right = dict.fromkeys(depths, 0.0)
    for first in range(0, len(grouped), BATCH // AT_ONCE):
        places = range(first, min(first + BATCH // AT_ONCE, len(grouped)))
        batch = collate([grouped.sample(k, 0) for k in places])
        for step, logits in enumerate(release.network.by_depth(batch, max(depths)), 1):
            if step in right:
                right[step] += float((all_right(logits, batch) & batch.asked).sum())
    return {depth: found / count for depth, found in right.items()}


def scores_of(answered: Answered) -> dict[str, Any]:
    """Return exact match, token F1 and numeric match, of all and by kind; templated rows have no exact match."""
    kinds: dict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(answered.asked):
        kinds[ALL].append(place)
        kinds[kind_of(one.question, one.answer)].append(place)
    return {kind: _mean_scores(answered, kinds[kind]) for kind in sorted(kinds)}


def _mean_scores(answered: Answered, places: Sequence[int]) -> dict[str, float | int | None]:
    scores = [answered.scores[k] for k in places]
    real = [score for k, score in zip(places, scores, strict=True) if not answered.asked[k].templated]
    numeric = [score.numeric for score in real if score.numeric is not None]
    return {
        "questions": len(scores),
        "exact": float(np.mean([score.exact for score in real])) if real else None,
        "f1": float(np.mean([score.f1 for score in scores])),
        "numeric": float(np.mean(numeric)) if numeric else None,
        "numeric_questions": len(numeric),
    }


def gain(
    better: Floats, worse: Floats, asked: Sequence[Asked], how: AnswerEvaluation
) -> dict[str, float | None] | None:
    """Return by how much more answers are right, with the 95 % interval by resampling images, or days of weather.

    Rows whose question was made from a template are left out; None where there are no others.
    """
    real = np.array([not one.templated for one in asked])
    if not real.any():
        return None
    _, place = np.unique(np.array([one.group for one in asked])[real], return_inverse=True)
    weights = np.bincount(place).astype(np.float64)
    sums = [np.bincount(place, weights=values[real]).astype(np.float64) for values in (better, worse)]
    more, less = (Sums(each, weights) for each in sums)
    return paired_bootstrap(more, less, how.resamples, how.seed).json()


def gains_by_kind(
    own: Floats, others: Mapping[str, Floats], asked: Sequence[Asked], how: AnswerEvaluation
) -> dict[str, dict[str, Any]]:
    """Return of each kind how many questions there are, the share of right answers, and the gain over whichever of the
    others is best at this kind; rows whose question was made from a template are left out.
    """
    kinds: dict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(asked):
        if not one.templated:
            kinds[kind_of(one.question, one.answer)].append(place)
    found = {}
    for kind, places in sorted(kinds.items()):
        exact = {name: float(values[places].mean()) for name, values in others.items()}
        best = max(exact, key=lambda name: exact[name])
        found[kind] = {
            "questions": len(places),
            "exact": float(own[places].mean()),
            "peer": best,
            "peer_exact": exact[best],
            "gain": gain(own[places], others[best][places], [asked[k] for k in places], how),
        }
    return found


def mean_exact(runs: Sequence[Answered]) -> Floats:
    """Return (N,): in how many of the runs, with different seeds, each question is answered rightly."""
    return np.mean([run.exact() for run in runs], axis=0)
