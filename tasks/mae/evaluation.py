"""The masked error of a vision model beside that of its baselines, on the windows of one split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.weather.sat_swin_mae import pixel_mask
from storage.window_dataset import WindowDataset
from tasks.intervals import Estimate, Resampled, Resamples
from tasks.mae.baselines import Climatology, interpolation, persistence
from tasks.mae.objective import BATCH, CONTEXT, MaskedWindows, collate
from tasks.mae.released import MaeRelease

MODEL, INTERPOLATION, PERSISTENCE, CLIMATE = "SatSwinMAE", "linear interpolation", "persistence", "climatology"
GUESSERS = (MODEL, INTERPOLATION, PERSISTENCE, CLIMATE)
RATIOS = (0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class MaskedErrors:
    """Errors on some windows whose cells are hidden in part; the same windows and masks for everybody who guesses."""

    sums: dict[str, NDArray[np.float64]]
    """Who guesses -> (2, windows, C): sums of squared errors of hidden valid values, and their number."""
    steps: NDArray[np.int64]
    """(windows,) first step of each window."""

    def mean(self, name: str) -> float:
        """Return the mean over channels of the mean squared error."""
        return float(np.nanmean(_by_channel(self.sums[name])))

    def by_channel(self, name: str, channels: tuple[str, ...]) -> dict[str, float]:
        """Return the mean squared error of each channel."""
        return dict(zip(channels, _by_channel(self.sums[name]).tolist(), strict=True))

    def ratio(self, name: str, other: str, resamples: int = 2000, seed: int = 0) -> Estimate:
        """Return one's mean error over another's, with the interval from resampling whole times of windows."""
        times, at = np.unique(self.steps, return_inverse=True)
        drawn = Resamples.draw(times, resamples, seed).weights[:, at].astype(np.float64)
        means = [
            np.nanmean(_by_channel(np.einsum("rw,kwc->krc", drawn, self.sums[n])[:, :, None]), -1)
            for n in (name, other)
        ]
        return Resampled(self.mean(name) / self.mean(other), means[0] / means[1]).estimate()


def masked_errors(
    release: MaeRelease, windows: WindowDataset, climate: Climatology, most: int, ratio: float
) -> MaskedErrors:
    """Return the errors of the model and of its baselines on up to `most` windows, evenly spaced.

    The windows are the same for every ratio, and the masks are fixed: the same for every model with cells of this size.
    """
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in GUESSERS}
    source = MaskedWindows(windows, release.network.units, ratio, most)
    for k, (data, valid, hidden, prediction) in enumerate(_reconstructions(release, source)):
        visible = valid & ~hidden
        usual = climate.window(windows.split, source.chosen[k])
        guesses = (prediction, interpolation(data, visible, usual), persistence(data, visible, usual), usual)
        counted = valid & hidden
        for name, guess in zip(GUESSERS, guesses, strict=True):
            squares = np.where(counted, guess - data, 0.0).astype(np.float64) ** 2
            found[name].append(np.stack([squares.sum((1, 2, 3)), counted.sum((1, 2, 3)).astype(np.float64)]))
    steps = [windows.training_set.origin(windows.split, index)[0] for index in source.chosen]
    return MaskedErrors({name: np.stack(parts, 1) for name, parts in found.items()}, np.array(steps))


def _reconstructions(release: MaeRelease, source: MaskedWindows) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Yield data, validity, what was hidden and the prediction of each window, from batches."""
    for first in range(0, len(source), BATCH):
        batch = collate([source.sample(k, k) for k in range(first, min(first + BATCH, len(source)))])
        prediction, hidden = _rebuild(release, batch)
        yield from zip(*(x.numpy() for x in (batch["data"], batch["valid"], hidden, prediction)), strict=True)


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
    """Return the mean squared error of each channel (..., C) from (2, ..., windows, C)."""
    with np.errstate(invalid="ignore"):
        errors: NDArray[np.float64] = sums[0].sum(-2) / sums[1].sum(-2)
    return errors
