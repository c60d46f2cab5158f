"""Judging fire models: every model on the same validation and test fires, beside CopyLast and burnable dilation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from configs.fire_evaluation import EvaluationConfig
from storage.fire_split import Part
from tasks.fire.rollout import (
    Probability,
    RolloutCounts,
    count_rollout,
    join_counts,
    roll_out,
    rollout_starts,
)
from tasks.fire.scores import BINS, SampleHistograms, Scorer, choose_threshold, threshold_bin

if TYPE_CHECKING:
    from torch import Tensor

    from models.fire.batch import FireBatch
    from tasks.fire.dataset import FireDataset


@dataclass(frozen=True)
class Contender:
    """A predictor that is judged."""

    name: str
    """What it is called in tables; runs that differ only in their seed share it."""
    predict: Probability
    """A batch to the probability of being burnt in the next frame, (B, H, W)."""
    samples: Callable[[Part], FireDataset]
    """The samples of a part (`train`, `validation`, `test`), whole crops, with the inputs that this model is shown."""
    seed: int | None = None
    """Seed of the training; None for what is not trained."""
    threshold: float | None = None
    """A threshold that belongs to the predictor (0.5 for what only copies or dilates); chosen on validation if None."""
    attention: Callable[[FireBatch], list[Tensor]] | None = None
    """A batch to the attention of each layer, (B, N, heads, T): what a token's last frame looks at."""

    @property
    def label(self) -> str:
        """Name and seed."""
        return self.name if self.seed is None else f"{self.name} (seed {self.seed})"


@dataclass(frozen=True)
class Judged:
    """A contender with everything that was counted about it."""

    contender: Contender
    threshold: float
    """Frozen before test."""
    threshold_from: str
    """`own`, `validation` or `config`."""
    validation: SampleHistograms
    test: SampleHistograms
    rollout: RolloutCounts
    """Free roll-outs on test."""


def judge(contender: Contender, config: EvaluationConfig) -> Judged:
    """Count a contender's predictions on validation and test; the threshold never sees test."""
    validation = score_part(contender, "validation", config.batch_size)
    threshold, source = _threshold(contender, config, validation)
    return Judged(
        contender,
        threshold,
        source,
        validation,
        score_part(contender, "test", config.batch_size),
        score_rollouts(contender, "test", threshold, config.rollout_steps, config.batch_size),
    )


def _threshold(contender: Contender, config: EvaluationConfig, validation: SampleHistograms) -> tuple[float, str]:
    if contender.threshold is not None:
        return contender.threshold, "own"
    if config.threshold != "validation":
        return threshold_bin(config.threshold) / BINS, "config"
    if not validation.growing.any():
        raise ValueError(
            "no validation fire grows, so no threshold can be chosen; set evaluation.threshold to a number, "
            "or give validation more fires"
        )
    return choose_threshold(validation), "validation"


def score_part(contender: Contender, part: Part, batch_size: int) -> SampleHistograms:
    """Count the predictions for all samples of a part."""
    import torch

    samples, scorer = contender.samples(part), Scorer()
    with torch.inference_mode():
        for batch in batches(samples, batch_size):
            scorer.add_batch(contender.predict(batch), batch)
    return scorer.histograms()


def score_rollouts(contender: Contender, part: Part, threshold: float, steps: int, batch_size: int) -> RolloutCounts:
    """Roll out freely from every frame of a part that so many true frames follow."""
    import torch

    samples, counted = contender.samples(part), []
    starts = rollout_starts(samples.samples, steps)
    fires = [samples.samples[chain[0]][0] for chain in starts]
    with torch.inference_mode():
        for group in _groups(fires, batch_size):
            chains = [starts[i] for i in group]
            truth = [load_batch(samples, [chain[ahead] for chain in chains]) for ahead in range(steps)]
            states = roll_out(contender.predict, truth, threshold, patch=samples.spec.patch, history=samples.history)
            counted.append(count_rollout(states, truth))
    return join_counts(counted, steps)


def batches(samples: FireDataset, batch_size: int) -> Iterator[FireBatch]:
    """Yield all samples in order; only samples of one fire share a batch, so that no crop is padded to another's."""
    yield from batches_of_fires(samples, [fire for fire, _ in samples.samples], batch_size)


def batches_of_fires(samples: FireDataset, fires: Sequence[int], batch_size: int) -> Iterator[FireBatch]:
    """Yield the samples of some fires, like `batches`."""
    wanted = set(fires)
    indices = [index for index, (fire, _) in enumerate(samples.samples) if fire in wanted]
    for group in _groups([samples.samples[index][0] for index in indices], batch_size):
        yield load_batch(samples, [indices[place] for place in group])


def load_batch(samples: FireDataset, indices: Sequence[int]) -> FireBatch:
    """Return the batch of these samples."""
    from tasks.fire.dataset import collate

    return collate([samples.sample(index, seed=0) for index in indices])


def _groups(fires: Sequence[int], size: int) -> list[list[int]]:
    """Cut 0..n-1 into runs of at most `size` that belong to one fire."""
    groups: list[list[int]] = []
    for index, fire in enumerate(fires):
        if groups and len(groups[-1]) < size and fires[groups[-1][0]] == fire:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def fires_of_different_size(judged: Judged, count: int) -> list[tuple[int, int]]:
    """Return (fire, step) of test fires from small to large, each at the step at which it grows most."""
    grown = judged.test.counts[:, 1, 1].sum(axis=-1)
    burnt = judged.test.counts[:, :, 1].sum(axis=(1, 2))
    best = [
        max(np.flatnonzero(judged.test.fire == fire).tolist(), key=lambda i: (grown[i], -i))
        for fire in judged.test.fires
    ]
    best = sorted((i for i in best if grown[i]), key=lambda i: (burnt[i], i))
    count = min(count, len(best))
    chosen = [best[int((place + 0.5) * len(best) / count)] for place in range(count)]
    return [(int(judged.test.fire[i]), int(judged.test.step[i])) for i in chosen]
