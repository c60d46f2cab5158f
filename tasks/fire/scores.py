"""Scores of fire spread predictions, computed from small per-sample histograms of probability.

A prediction is counted once, pixel by pixel, into `SampleHistograms`: 256 bins of probability, apart for burnt and
unburnt truth and for pixels that had burnt in the last frame and those that had not ("growth" pixels). Every threshold,
precision-recall curve, reliability diagram and bootstrap resample then comes from these counts without the pixels.

Undefined numbers stay NaN: a sample without growth has no growth-F1 (it counts as a chance for false growth instead),
and neither is ever averaged as a zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from models.fire.batch import FireBatch

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

BINS = 256
"""Bins of probability; a power of two, so that probability * BINS is exact and a threshold k / BINS splits no bin."""
CALIBRATION_BINS = 16
"""Bins of the expected calibration error, where no configuration says otherwise."""
BEFORE, GROWTH = 0, 1
"""Areas of a sample: pixels that had burnt in the last frame, and domain pixels that had not."""


@dataclass(frozen=True)
class SampleHistograms:
    """What S samples leave behind for scoring."""

    fire: Ints
    """(S,) number of the fire."""
    step: Ints
    """(S,) number of the last history frame."""
    counts: NDArray[np.int32]
    """(S, 2, 2, BINS) domain pixels by area (BEFORE, GROWTH), truth (unburnt, burnt) and bin of probability."""
    confidence: Floats
    """(S, BINS) sum of the probabilities of growth pixels, by bin."""
    squared_error: Floats
    """(S, 2) sum of (probability - truth)^2 by area."""

    def __len__(self) -> int:
        return len(self.fire)

    @property
    def fires(self) -> Ints:
        """(F,) numbers of the fires, ascending."""
        return np.unique(self.fire)

    @property
    def growing(self) -> Mask:
        """(S,) samples in which anything burns for the first time."""
        grows: Mask = self.counts[:, GROWTH, 1].sum(axis=-1) > 0
        return grows

    def select(self, chosen: Mask) -> Self:
        """Return the chosen samples."""
        return type(self)(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        from safetensors.numpy import save_file

        from storage.files import atomic_path

        with atomic_path(path) as temporary:
            save_file({f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)}, temporary)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        from safetensors.numpy import load_file

        return cls(**load_file(path))


@dataclass
class Scorer:
    """Counts predictions one sample at a time; it never holds a picture."""

    fire: list[int] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    counts: list[NDArray[np.int32]] = field(default_factory=list)
    confidence: list[NDArray[Any]] = field(default_factory=list)
    squared_error: list[NDArray[Any]] = field(default_factory=list)

    def add(self, probability: NDArray[Any], target: Mask, last: Mask, domain: Mask, *, fire: int, step: int) -> None:
        """Count one sample; every array is (H, W).

        Raises:
            ValueError: a probability inside the domain is NaN or outside 0..1.
        """
        p = probability[domain].astype(np.float64)
        if not (p.size == 0 or (p.min() >= 0 and p.max() <= 1)):
            raise ValueError(f"the prediction of fire {fire}, step {step} is not within 0..1; check the model for NaN")
        burnt, area = target[domain], (~last)[domain].astype(np.int64)
        bins = np.minimum((p * BINS).astype(np.int64), BINS - 1)
        cells = (area * 2 + burnt) * BINS + bins
        growth = area == GROWTH
        self.fire.append(fire)
        self.step.append(step)
        self.counts.append(np.bincount(cells, minlength=4 * BINS).reshape(2, 2, BINS).astype(np.int32))
        self.confidence.append(np.bincount(bins[growth], weights=p[growth], minlength=BINS))
        self.squared_error.append(np.bincount(area, weights=(p - burnt) ** 2, minlength=2))

    def add_batch(self, probability: Tensor, batch: FireBatch) -> None:
        """Count the predictions (B, H, W) for a batch."""
        tensors = (probability.float(), batch.target, batch.burnt, batch.counted)
        arrays = [tensor.cpu().numpy() for tensor in tensors]
        places = zip(batch.fire_index.tolist(), batch.step.tolist(), strict=True)
        for i, (fire, step) in enumerate(places):
            self.add(*(array[i] for array in arrays), fire=fire, step=step)

    def histograms(self) -> SampleHistograms:
        """Return everything counted so far."""
        return SampleHistograms(
            np.array(self.fire, np.int64),
            np.array(self.step, np.int64),
            np.array(self.counts, np.int32).reshape(-1, 2, 2, BINS),
            np.array(self.confidence, np.float64).reshape(-1, BINS),
            np.array(self.squared_error, np.float64).reshape(-1, 2),
        )


def ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Floats:
    """Return numerator / denominator, NaN where there is nothing to divide by."""
    undefined = np.full(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=np.asarray(denominator) != 0)


def confusion(samples: SampleHistograms, threshold: float, *, growth: bool) -> tuple[Ints, Ints, Ints]:
    """Return true positives, false positives and false negatives per sample, (S,) each.

    With `growth` only pixels that had not burnt in the last frame count, else the whole domain.
    """
    counts = samples.counts[:, GROWTH] if growth else samples.counts.sum(axis=1)
    first = threshold_bin(threshold)
    positive = counts[..., first:].sum(axis=-1, dtype=np.int64)
    missed = counts[:, 1, :first].sum(axis=-1, dtype=np.int64)
    return positive[:, 1], positive[:, 0], missed


def threshold_bin(threshold: float) -> int:
    """Return k of the threshold k / BINS, at least 1."""
    return min(max(round(threshold * BINS), 1), BINS - 1)


def choose_threshold(samples: SampleHistograms) -> float:
    """Return the threshold with the highest pooled growth-F1; among equals the one nearest to 0.5."""
    counts = samples.counts[:, GROWTH].sum(axis=0, dtype=np.int64)
    above = counts[:, ::-1].cumsum(axis=-1)[:, ::-1]
    f1 = np.nan_to_num(ratio(2 * above[1], above[0] + counts[1].sum() + above[1]))[1:]
    best = np.flatnonzero(f1 == f1.max()) + 1
    return float(best[np.argmin(abs(best - BINS / 2))]) / BINS


def average_precision(counts: NDArray[Any]) -> Floats:
    """Return the average precision, sum of (R_n - R_n-1) P_n, of counts (..., 2, BINS); NaN without positives."""
    above = counts[..., ::-1].cumsum(axis=-1).astype(np.float64)
    precision = np.nan_to_num(ratio(above[..., 1, :], above.sum(axis=-2)))
    gained = counts[..., 1, ::-1].astype(np.float64)
    return ratio((gained * precision).sum(axis=-1), gained.sum(axis=-1))


def measures(
    samples: SampleHistograms, threshold: float, calibration_bins: int, weights: NDArray[Any] | None = None
) -> dict[str, Floats]:
    """Return every score, (R,) values each.

    Pooled over pixels, unless the name says `macro` (mean over samples). `growth_` scores count only pixels that had
    not burnt in the last frame, and are undefined where nothing grows. `macro_f1_later` leaves out the first step of
    each fire, t = 0.

    Args:
        samples: S samples of F fires.
        threshold: probability from which on a pixel counts as burnt.
        calibration_bins: bins of the expected calibration error; divides 256.
        weights: (R, F) how often each fire counts; R bootstrap resamples. All once when absent, R = 1.
    """
    position = np.searchsorted(samples.fires, samples.fire)
    times = np.ones((1, len(samples))) if weights is None else weights[:, position].astype(np.float64)

    def total(values: NDArray[Any]) -> Floats:
        summed: Floats = (times @ values.reshape(len(samples), -1)).reshape(-1, *values.shape[1:])
        return summed

    def mean(values: Floats) -> Floats:
        return ratio(total(np.nan_to_num(values)), total(np.isfinite(values)))

    everything, growth = samples.counts.sum(axis=1), samples.counts[:, GROWTH]
    full = confusion(samples, threshold, growth=False)
    grown = confusion(samples, threshold, growth=True)
    f1 = _f1(*full)
    still = ~samples.growing
    result = _pooled(*(total(c) for c in full))
    grows = total(grown[0] + grown[2]) > 0
    pooled = _pooled(*(total(c) for c in grown))
    result |= {f"growth_{name}": np.where(grows, value, np.nan) for name, value in pooled.items()}
    result |= {
        "ap": average_precision(total(everything)),
        "growth_ap": average_precision(total(growth)),
        "macro_f1": mean(f1),
        "macro_f1_later": mean(np.where(samples.step > 0, f1, np.nan)),
        "macro_iou": mean(ratio(full[0], full[0] + full[1] + full[2])),
        "macro_growth_f1": mean(np.where(still, np.nan, _f1(*grown))),
        "false_growth_rate": mean(np.where(still, grown[1] > 0, np.nan)),
        "false_growth_pixels": mean(np.where(still, grown[1], np.nan)),
        "brier": ratio(total(samples.squared_error.sum(axis=1)), total(everything.sum(axis=(1, 2)))),
        "growth_brier": ratio(total(samples.squared_error[:, GROWTH]), total(growth.sum(axis=(1, 2)))),
        "growth_ece": _calibration_error(total(growth), total(samples.confidence), calibration_bins),
    }
    return result


def _f1(hits: NDArray[Any], false: NDArray[Any], missed: NDArray[Any]) -> Floats:
    return ratio(2 * hits, 2 * hits + false + missed)


def _pooled(hits: Floats, false: Floats, missed: Floats) -> dict[str, Floats]:
    return {
        "precision": ratio(hits, hits + false),
        "recall": ratio(hits, hits + missed),
        "f1": _f1(hits, false, missed),
        "iou": ratio(hits, hits + false + missed),
    }


def _calibration_error(counts: Floats, confidence: Floats, bins: int) -> Floats:
    """Expected calibration error: mean over pixels of |burnt share - mean probability| of their bin, (R,)."""
    burnt = counts[:, 1].reshape(len(counts), bins, -1).sum(axis=-1)
    claimed = confidence.reshape(len(counts), bins, -1).sum(axis=-1)
    return ratio(abs(burnt - claimed).sum(axis=-1), counts.sum(axis=(1, 2)))


def reliability(samples: SampleHistograms, bins: int) -> dict[str, list[float]]:
    """Return pixels, mean probability and burnt share per bin of probability, over growth pixels."""
    counts = samples.counts[:, GROWTH].sum(axis=0, dtype=np.int64).reshape(2, bins, -1).sum(axis=-1)
    claimed = samples.confidence.sum(axis=0).reshape(bins, -1).sum(axis=-1)
    pixels = counts.sum(axis=0)
    return {
        "pixels": pixels.tolist(),
        "probability": ratio(claimed, pixels).tolist(),
        "burnt_share": ratio(counts[1], pixels).tolist(),
    }


def precision_recall(samples: SampleHistograms) -> dict[str, list[float]]:
    """Return precision and recall of growth pixels at the thresholds 1/256 to 255/256."""
    counts = samples.counts[:, GROWTH].sum(axis=0, dtype=np.int64)
    above = counts[:, ::-1].cumsum(axis=-1)[:, ::-1][:, 1:]
    return {
        "threshold": (np.arange(1, BINS) / BINS).tolist(),
        "precision": ratio(above[1], above.sum(axis=0)).tolist(),
        "recall": ratio(above[1], counts[1].sum()).tolist(),
    }


def fire_sizes(samples: SampleHistograms) -> Ints:
    """Return per sample the burnt pixels of its fire's last frame, (S,)."""
    return _largest_of_fire(samples, samples.counts[:, :, 1].sum(axis=(1, 2), dtype=np.int64))


def fire_lengths(samples: SampleHistograms) -> Ints:
    """Return per sample the number of frames T of its fire, (S,); its last sample is T - 2."""
    return _largest_of_fire(samples, samples.step + 2)


def _largest_of_fire(samples: SampleHistograms, values: Ints) -> Ints:
    position = np.searchsorted(samples.fires, samples.fire)
    largest = np.zeros(len(samples.fires), np.int64)
    np.maximum.at(largest, position, values)
    return largest[position]


def size_classes(sizes: Ints, edges: Sequence[int]) -> dict[str, Mask]:
    """Return which samples belong to each class of fire size, smallest first."""
    borders = [0, *edges]
    inner = {f"{low}-{high - 1} px": (sizes >= low) & (sizes < high) for low, high in pairwise(borders)}
    return inner | {f">= {borders[-1]} px": sizes >= borders[-1]}
