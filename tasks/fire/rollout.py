"""Free roll-outs: a prediction becomes the last frame of the next step, with the wind that really followed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.fire.scores import Floats, Ints, ratio

if TYPE_CHECKING:
    from torch import Tensor

    from models.fire.batch import FireBatch

Probability = Callable[["FireBatch"], "Tensor"]
"""A predictor: a batch to the probability of being burnt in the next frame, (B, H, W), on the batch's device."""


def advance(
    batch: FireBatch,
    burnt: Tensor,
    wind: Tensor,
    wind_valid: Tensor,
    *,
    patch: int,
    history: int,
    target: Tensor | None = None,
) -> FireBatch:
    """Return the batch one step later, as if `burnt` had happened: ages, shares and history as the dataset has them.

    Args:
        batch: samples (fire, t).
        burnt: (B, H, W) bool, the state at t + 1.
        wind: (B, 3) the wind of row t + 1, standardised.
        wind_valid: (B,) bool.
        patch: pixels along the side of a token.
        history: frames that a sample has at most.
        target: (B, H, W) bool, the true state at t + 2; nothing burns when absent.
    """
    import torch

    before = (batch.age > 0) & batch.domain
    frames = (batch.time_valid.sum(dim=1) + 1).clamp(max=history)
    older = torch.minimum(batch.age.long() + 1, frames[:, None, None])
    age = torch.where(before, older, (burnt & batch.domain).long()).to(batch.age.dtype)

    def appended(series: Tensor, row: Tensor) -> Tensor:
        return torch.cat([series, row[:, None]], dim=1)[:, -history:]

    return replace(
        batch,
        fire=appended(batch.fire, burnt_shares(age > 0, batch.domain, patch).to(batch.fire.dtype)),
        time_valid=appended(batch.time_valid, torch.ones_like(wind_valid)),
        wind=appended(batch.wind, wind),
        wind_valid=appended(batch.wind_valid, wind_valid),
        age=age,
        target=torch.zeros_like(batch.target) if target is None else target,
        step=batch.step + 1,
    )


def burnt_shares(burnt: Tensor, domain: Tensor, patch: int) -> Tensor:
    """Return the burnt share of the domain pixels of each token, (B, N), rounded like the cache's float16."""
    from torch.nn import functional

    counts = [functional.avg_pool2d(mask.float(), patch).mul(patch**2).round() for mask in (burnt & domain, domain)]
    return (counts[0] / counts[1].clamp(min=1)).half().flatten(1)


def roll_out(predict: Probability, truth: Sequence[FireBatch], threshold: float, *, patch: int, history: int) -> Tensor:
    """Return the predicted states (k, B, H, W) of k steps; only the first batch's history is known to the predictor.

    Args:
        predict: the predictor.
        truth: k batches of the samples (fire, t), (fire, t + 1), ...
        threshold: probability from which on a pixel counts as burnt.
        patch: pixels along the side of a token.
        history: frames that a sample has at most.
    """
    import torch

    batch, states = truth[0], list[torch.Tensor]()
    for index in range(len(truth)):
        if index:
            true = truth[index]
            assert torch.equal(batch.fire_index, true.fire_index), "the batches hold different fires"
            assert torch.equal(batch.step + 1, true.step), "the batches are not one step apart"
            wind, known = true.wind[:, -1], true.wind_valid[:, -1]
            batch = advance(batch, states[-1], wind, known, patch=patch, history=history, target=true.target)
        states.append((batch.burnt | (predict(batch) >= threshold)) & batch.domain)
    return torch.stack(states)


def rollout_starts(samples: Sequence[tuple[int, int]], steps: int) -> list[list[int]]:
    """Return for every start the indices of its `steps` consecutive samples; starts that end too early have none."""
    where = {sample: index for index, sample in enumerate(samples)}
    chains = [[where.get((fire, step + ahead)) for ahead in range(steps)] for fire, step in samples]
    return [[index for index in chain if index is not None] for chain in chains if None not in chain]


@dataclass(frozen=True)
class RolloutCounts:
    """Overlap of predicted and true states, for S starts and horizons 1..k."""

    fire: Ints
    """(S,) number of the fire."""
    step: Ints
    """(S,) number of the last frame that was known."""
    full: Ints
    """(S, k, 2) pixels in the intersection and in the union of predicted and true states."""
    growth: Ints
    """(S, k, 2) the same, only for pixels that had not burnt at the start."""

    @property
    def fires(self) -> Ints:
        """(F,) numbers of the fires, ascending."""
        return np.unique(self.fire)


def count_rollout(states: Tensor, truth: Sequence[FireBatch]) -> RolloutCounts:
    """Compare predicted states (k, B, H, W) with the targets of their batches."""
    import torch

    target, full = torch.stack([b.target for b in truth]), torch.stack([b.counted for b in truth])
    growth = full & ~truth[0].burnt

    def overlap(area: Tensor) -> Ints:
        pairs = [(states & target & area).sum(dim=(2, 3)), ((states | target) & area).sum(dim=(2, 3))]
        counted: Ints = torch.stack(pairs, dim=-1).transpose(0, 1).cpu().numpy()
        return counted

    return RolloutCounts(truth[0].fire_index.cpu().numpy(), truth[0].step.cpu().numpy(), overlap(full), overlap(growth))


def join_counts(parts: Sequence[RolloutCounts], steps: int) -> RolloutCounts:
    """Return the counts of all parts, one after the other."""
    empty = RolloutCounts(np.zeros(0, np.int64), np.zeros(0, np.int64), *(np.zeros((0, steps, 2), np.int64),) * 2)
    return RolloutCounts(*(np.concatenate([getattr(p, name) for p in [empty, *parts]]) for name in vars(empty)))


def rollout_measures(counts: RolloutCounts, weights: NDArray[Any] | None = None) -> dict[str, Floats]:
    """Return intersection over union by horizon, (R, k) each.

    `iou` pools pixels, `growth_iou` pools pixels that had not burnt at the start, `macro_iou` is the mean over starts.

    Args:
        counts: overlaps of S starts of F fires.
        weights: (R, F) how often each fire counts; all once when absent, R = 1.
    """
    position = np.searchsorted(counts.fires, counts.fire)
    times = np.ones((1, len(counts.fire))) if weights is None else weights[:, position].astype(np.float64)
    full = np.einsum("rs,skc->rkc", times, counts.full)
    growth = np.einsum("rs,skc->rkc", times, counts.growth)
    each = ratio(counts.full[..., 0], counts.full[..., 1])
    return {
        "iou": ratio(full[..., 0], full[..., 1]),
        "growth_iou": ratio(growth[..., 0], growth[..., 1]),
        "macro_iou": ratio(times @ np.nan_to_num(each), times @ np.isfinite(each)),
    }
