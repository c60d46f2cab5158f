"""The masked error of a vision model beside that of its baselines, on the windows of one split."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.weather.sat_swin_mae import pixel_mask
from storage.window_dataset import WindowDataset
from tasks.intervals import Estimate, Resampled, Resamples, spells
from tasks.mae.baselines import Climatology, best_paces, interpolation, persistence
from tasks.mae.objective import BATCH, CONTEXT, Batch, HiddenValues, MaskedWindows, collate
from tasks.mae.released import MaeRelease

MODEL, INTERPOLATION, PERSISTENCE, CLIMATE = "SatSwinMAE", "interpolation of departures", "persistence", "climatology"
BASELINES = (INTERPOLATION, PERSISTENCE, CLIMATE)
GUESSERS = (MODEL, *BASELINES)
RATIOS = (0.25, 0.5, 0.75, 0.9)
FEW_SPELLS = 5
"""With fewer spells of weather intervals say little."""
PACE_WINDOWS = 4
"""Training windows that the paces of the interpolation are chosen on; each has thousands of hidden cells."""


@dataclass(frozen=True)
class Ratios:
    """Errors over those of each channel's peer, with intervals; NaN for a channel whose peer makes no error."""

    peers: tuple[str, ...]
    """Of each channel."""
    by_channel: tuple[Estimate, ...]
    mean: Estimate
    geometric_mean: Estimate
    """A channel that is easily told has no more part in it than any other."""


@dataclass(frozen=True)
class MaskedErrors:
    """Errors on some windows whose cells are hidden in part; the same windows and masks for everybody who guesses."""

    sums: dict[str, NDArray[np.float64]]
    """Who guesses -> (2, windows, C): weighted sums of squared errors of hidden valid values, and of their weights."""
    spells: NDArray[np.int64]
    """(windows,) which spell of weather each window lies in; what spells hold is independent."""

    def mean(self, name: str) -> float:
        """Return the mean over channels of the mean squared error."""
        return float(_mean(_by_channel(self.sums[name].sum(1))))

    def by_channel(self, name: str, channels: tuple[str, ...]) -> dict[str, float]:
        """Return the mean squared error of each channel."""
        return dict(zip(channels, _by_channel(self.sums[name].sum(1)).tolist(), strict=True))

    def ratio(self, name: str, other: str, resamples: int = 2000, seed: int = 0) -> Estimate:
        """Return one's mean error over another's, with the interval from resampling whole spells."""
        drawn = self._drawn(resamples, seed)
        ours, theirs = (_mean(self._resampled(n, drawn)) for n in (name, other))
        return _estimate(ours / theirs)

    def over_best(self, name: str, others: Sequence[str], resamples: int = 2000, seed: int = 0) -> Ratios:
        """Return one's error of each channel over that of the best of others, which stays so in all resamples."""
        drawn = self._drawn(resamples, seed)
        errors = np.stack([self._resampled(n, drawn) for n in others])
        best = np.where(np.isnan(errors[:, 0]), np.inf, errors[:, 0]).argmin(0)
        theirs = np.take_along_axis(errors, best[None, None], 0)[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(theirs > 0, self._resampled(name, drawn) / theirs, np.nan)
            geometric = np.exp(_mean(np.log(ratios)))
        return Ratios(
            tuple(others[k] for k in best),
            tuple(map(_estimate, ratios.T)),
            _estimate(_mean(ratios)),
            _estimate(geometric),
        )

    def summary(self, channels: tuple[str, ...]) -> dict[str, Any]:
        """Return errors by channel and those of the model over its baselines', as JSON."""
        best, count = self.over_best(MODEL, BASELINES), len(np.unique(self.spells))
        told: dict[str, Any] = {
            "windows": len(self.spells),
            "spells": count,
            "error": {name: self.mean(name) for name in GUESSERS},
            "by_channel": {name: self.by_channel(name, channels) for name in GUESSERS},
            "vs_interpolation": self.ratio(MODEL, INTERPOLATION).json(),
            "vs_best": {
                "baseline": dict(zip(channels, best.peers, strict=True)),
                "by_channel": {name: ratio.json() for name, ratio in zip(channels, best.by_channel, strict=True)},
                "mean": best.mean.json(),
                "geometric_mean": best.geometric_mean.json(),
            },
        }
        if count == 1:
            told["caution"] = "there are no intervals: all windows lie in one spell of weather"
        elif count < FEW_SPELLS:
            told["caution"] = f"intervals rest on {count} spells of weather only"
        return told

    def _drawn(self, resamples: int, seed: int) -> NDArray[np.float64]:
        """Return how often each window counts, (1 + R, windows): once, then as often as its spell is drawn.

        With one spell the latter is NaN: it does not tell how much spells differ.
        """
        windows = np.arange(len(self.spells))
        drawn = Resamples.draw_together(windows, self.spells, resamples, seed).weights.astype(np.float64)
        if len(np.unique(self.spells)) == 1:
            drawn[:] = np.nan
        return np.concatenate([np.ones((1, len(windows))), drawn])

    def _resampled(self, name: str, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean squared error of each channel, (1 + R, C)."""
        return _by_channel(np.einsum("rw,kwc->krc", drawn, self.sums[name]))


def hidden_values(release: MaeRelease) -> HiddenValues:
    """Return which values count, and how much: those that did in the model's training."""
    network, by_latitude = release.network, release.recipe.latitude_weighting
    return HiddenValues(release.channels, network.units, network.config.cell, network.window, by_latitude)


def masked_errors(
    release: MaeRelease,
    windows: WindowDataset,
    climate: Climatology,
    paces: NDArray[np.float64],
    most: int,
    ratio: float,
) -> MaskedErrors:
    """Return the errors of the model and of its baselines on up to `most` windows, evenly spaced.

    The windows are the same for every ratio, and the masks are fixed: the same for every model with cells of this size.
    `paces`, (C,), are those of `interpolation`.
    """
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in GUESSERS}
    times = []
    hidden = hidden_values(release)
    source = MaskedWindows(windows, hidden.units, ratio, most)
    for batch, chosen in _batches(source):
        times.append(batch["time"].numpy().astype("datetime64[s]"))
        shown = zip(*_shown(hidden, batch), _rebuild(release, batch)[0].numpy(), chosen, strict=True)
        for data, visible, weights, prediction, index in shown:
            usual = climate.window(windows.split, index)
            guesses = (
                prediction, interpolation(data, visible, usual, paces), persistence(data, visible, usual), usual
            )  # fmt: skip
            for name, guess in zip(GUESSERS, guesses, strict=True):
                found[name].append(_sums(guess, data, weights))
    return MaskedErrors({name: np.stack(parts, 1) for name, parts in found.items()}, spells(np.concatenate(times)))


def fit_paces(release: MaeRelease, windows: WindowDataset, climate: Climatology, ratio: float) -> NDArray[np.float64]:
    """Return the paces of `interpolation`, (C,), that tell hidden values of training windows best."""
    hidden = hidden_values(release)
    source = MaskedWindows(windows, hidden.units, ratio, PACE_WINDOWS)
    samples = [
        (*sample, climate.window(windows.split, index))
        for batch, chosen in _batches(source)
        for *sample, index in zip(*_shown(hidden, batch), chosen, strict=True)
    ]

    def errors(pace: float) -> NDArray[np.float64]:
        paces = np.full(len(release.channels), pace)
        guesses = (interpolation(data, visible, usual, paces) for data, visible, _, usual in samples)
        return np.sum([_sums(guess, data, w)[0] for guess, (data, _, w, _) in zip(guesses, samples, strict=True)], 0)

    return best_paces(errors)


def _batches(source: MaskedWindows) -> Iterator[tuple[Batch, list[int]]]:
    """Yield windows under the masks of their own numbers, and their places in the split."""
    for first in range(0, len(source), BATCH):
        chosen = source.chosen[first : first + BATCH]
        yield collate([source.sample(k, k) for k in range(first, first + len(chosen))]), chosen


def _shown(hidden: HiddenValues, batch: Batch) -> tuple[Any, Any, Any]:
    """Return data, what is visible, and the weights of what is hidden, (B, C, T, H, W) each."""
    visible = batch["valid"] & ~hidden.mask(batch)
    return batch["data"].numpy(), visible.numpy(), hidden.weights(batch).numpy()


def _sums(guess: Any, data: Any, weights: Any) -> NDArray[np.float64]:
    """Return the weighted sum of squared errors and that of weights of each channel, (2, C), from (C, T, H, W)."""
    squares = np.where(weights > 0, guess - data, 0.0).astype(np.float64) ** 2 * weights
    return np.stack([squares.sum((1, 2, 3)), weights.sum((1, 2, 3), dtype=np.float64)])


@torch.no_grad()
def _rebuild(release: MaeRelease, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the prediction (B, C, T, H, W), and what was hidden (B, 1, T, H, W)."""
    network = release.network
    prediction = network(batch["data"], batch["mask"], **{name: batch[name] for name in CONTEXT})
    return prediction, pixel_mask(batch["mask"], network.units, network.config.cell, network.window)


def reconstruct(
    release: MaeRelease, windows: WindowDataset, ratio: float, count: int = 2
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Return a few evenly spaced windows as a batch, what the model makes of them, and what was hidden."""
    source = MaskedWindows(windows, release.network.units, ratio, count)
    batch = collate([source.sample(index, index) for index in range(len(source))])
    return batch, *_rebuild(release, batch)


def _by_channel(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mean squared errors (...) from sums of squares and of weights, (2, ...); NaN where nothing counts."""
    with np.errstate(invalid="ignore"):
        errors: NDArray[np.float64] = sums[0] / sums[1]
    return errors


def _mean(by_channel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the channels that are not NaN, (...), from (..., C)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no channel has any value: NaN is the answer
        mean: NDArray[np.float64] = np.nanmean(by_channel, -1)
    return mean


def _estimate(values: NDArray[np.float64]) -> Estimate:
    """Return the first of (1 + R,) values with the interval that the others span."""
    return Resampled(float(values[0]), values[1:]).estimate()
