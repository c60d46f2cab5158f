"""The masked error of a vision model beside that of its baselines, on the windows of one split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.sat_swin_mae import pixel_mask
from storage.window_dataset import WindowDataset
from tasks.mae.baselines import Climatology, interpolation, persistence
from tasks.mae.objective import CONTEXT, MaskedWindows, collate
from tasks.mae.released import MaeRelease

MODEL, INTERPOLATION, PERSISTENCE, CLIMATE = "SatSwinMAE", "linear interpolation", "persistence", "climatology"
GUESSERS = (MODEL, INTERPOLATION, PERSISTENCE, CLIMATE)
RATIOS = (0.25, 0.5, 0.75, 0.9)


def masked_errors(
    release: MaeRelease, windows: WindowDataset, climate: Climatology, most: int, ratio: float
) -> dict[str, NDArray[np.float64]]:
    """Return who guesses -> (2, windows, C): sums of squared errors of hidden valid values, and their number.

    The windows are the same for every ratio, and the masks are fixed: the same for every model with cells of this size.
    """
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in GUESSERS}
    source = MaskedWindows(windows, release.network.units, ratio, most)
    for k, (sample, data, hidden, prediction) in enumerate(_reconstructions(release, source)):
        valid = sample["valid"].numpy()
        visible = valid & ~hidden
        usual = climate.window(windows.split, source.chosen[k])
        guesses = (prediction, interpolation(data, visible, usual), persistence(data, visible, usual), usual)
        counted = valid & hidden
        for name, guess in zip(GUESSERS, guesses, strict=True):
            squares = np.where(counted, guess - data, 0.0).astype(np.float64) ** 2
            found[name].append(np.stack([squares.sum((1, 2, 3)), counted.sum((1, 2, 3)).astype(np.float64)]))
    return {name: np.stack(parts, 1) for name, parts in found.items()}


def _reconstructions(release: MaeRelease, source: MaskedWindows) -> Iterator[tuple[dict[str, Any], Any, Any, Any]]:
    for index in range(len(source)):
        sample = source.sample(index, index)
        prediction, hidden = _rebuild(release, collate([sample]))
        yield sample, sample["data"].numpy(), hidden[0].numpy(), prediction[0].numpy()


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


def mean_error(sums: NDArray[np.float64]) -> float:
    """Return the mean over channels of the mean squared error, from (2, windows, C)."""
    return float(np.nanmean(_by_channel(sums)))


def channel_errors(sums: NDArray[np.float64], channels: tuple[str, ...]) -> dict[str, float]:
    """Return the mean squared error of each channel, from (2, windows, C)."""
    return dict(zip(channels, _by_channel(sums).tolist(), strict=True))


def _by_channel(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        errors: NDArray[np.float64] = sums[0].sum(0) / sums[1].sum(0)
    return errors
