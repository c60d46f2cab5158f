"""What SatSwinMAE is trained towards: hidden parts of a window, from the rest of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from configs.weather_lm import MaeRecipe
from models.weather.sat_swin_mae import (
    SatSwinMAE,
    draw_masks,
    pixel_mask,
    squared_errors,
    sum_by_channel,
    value_weights,
)
from models.weather.swin3d import Grid, as_grid
from storage.window_dataset import WindowDataset
from tasks.mae.released import MaeRelease, release_config
from tasks.training.loader import Weigher, ordered_batches
from tasks.training.objective import Objective
from tasks.training.share import Share

Batch = dict[str, Tensor]
BATCH = 16
"""Windows of one forward pass of an evaluation."""
CONTEXT = ("time", "latitude", "longitude")


class MaskedWindows:
    """Windows with a mask each; a window's mask comes from the seed that it is asked for with."""

    def __init__(self, windows: WindowDataset, units: Grid, ratio: float, most: int | None = None):
        self._windows, self._units, self._ratio = windows, units, ratio
        n = len(windows)
        count = n if most is None else min(n, most)
        self.chosen = (np.arange(count) * n // max(count, 1)).tolist()

    def __len__(self) -> int:
        return len(self.chosen)

    def sample(self, index: int, seed: int) -> Batch:
        """Return a window of `WindowDataset`, with `mask` (units,), true where hidden."""
        generator = torch.Generator().manual_seed(seed)
        mask = draw_masks(1, self._units, self._ratio, generator)[0]
        return {**self._windows[self.chosen[index]], "mask": mask}


def collate(samples: Sequence[Batch]) -> Batch:
    """Stack windows."""
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


@dataclass(frozen=True)
class HiddenValues:
    """Says which values of a batch count: those that are hidden and valid."""

    channels: tuple[str, ...]
    units: Grid
    cell: Grid
    window: Grid
    by_latitude: bool

    def mask(self, batch: Batch) -> Tensor:
        """Return (B, 1, T, H, W), true where hidden."""
        return pixel_mask(batch["mask"], self.units, self.cell, self.window)

    def weights(self, batch: Batch) -> Tensor:
        """Return (B, C, T, H, W)."""
        return value_weights(self.mask(batch), batch["valid"], batch["latitude"] if self.by_latitude else None)

    def by_channel(self, batch: Batch) -> dict[str, float]:
        """Return the sum of the weights of each channel."""
        return dict(zip(self.channels, sum_by_channel(self.weights(batch)).tolist(), strict=True))


class MaeObjective(Objective):
    """Masked reconstruction, configured by `store` and `training_set` (folders) and `recipe`."""

    RELEASE = MaeRelease
    PREVIEWS = "tasks.mae.previews:draw"

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._folders = Path(config["store"]), Path(config["training_set"])
        self.recipe = MaeRecipe.model_validate(config["recipe"])
        self.windows = WindowDataset(*self._folders, "train")
        grid = self.windows.training_set.grid
        self.window = grid.shape
        self.channels = self.windows.store.channels
        cell = self.recipe.model.cell
        self.units = as_grid(-(-size // step) for size, step in zip(self.window, cell, strict=True))
        self.hidden = HiddenValues(self.channels, self.units, cell, self.window, self.recipe.latitude_weighting)
        self.coefficients = dict.fromkeys(self.channels, 1 / len(self.channels))

    def build(self) -> nn.Module:
        """Return the model."""
        return SatSwinMAE(self.recipe.model, len(self.channels), self.window)

    def source(self, part: str) -> MaskedWindows:
        """Return the training windows, or up to `validation_windows` of another part."""
        windows = self.windows if part == "train" else WindowDataset(*self._folders, part)
        most = None if part == "train" else self.recipe.validation_windows
        return MaskedWindows(windows, self.units, self.recipe.mask_ratio, most)

    @staticmethod
    def collate(samples: Sequence[Batch]) -> Batch:
        """Stack windows."""
        return collate(samples)

    def weigher(self) -> Weigher:
        """Return the function of each channel's weight of what is hidden and valid."""
        return self.hidden.by_channel

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return, per channel, the weighted sum of squared errors over what is hidden and valid."""
        sums = squared_errors(rebuilt(model, batch), batch["data"], self.hidden.weights(batch))
        return dict(zip(self.channels, sums, strict=True))

    def evaluate(self, model: nn.Module, share: Share) -> dict[str, float]:
        """Return the mean squared error of hidden validation values, normalised, and that of the channels' means."""
        totals = torch.zeros(3, len(self.channels), dtype=torch.float64)
        for batch in ordered_batches(share, self.source("validation"), collate, batch_size=BATCH):
            weights, data = self.hidden.weights(batch), batch["data"]
            sums = squared_errors(rebuilt(model, batch), data, weights)
            of_means = squared_errors(torch.zeros_like(data), data, weights)
            totals += torch.stack([sums, sum_by_channel(weights), of_means]).double().cpu()
        errors, weights, means = share.sum(totals)
        by_channel = (errors / weights).tolist()
        return {
            "masked_mse": _mean(errors / weights),
            "masked_mse_of_means": _mean(means / weights),
            **{f"masked_mse_{name}": value for name, value in zip(self.channels, by_channel, strict=True)},
        }

    def release_config(self) -> dict[str, Any]:
        """Return the recipe, and the shape and statistics of the data."""
        return release_config(self.recipe, self.windows)


def rebuilt(model: nn.Module, batch: Batch) -> Tensor:
    """Return what a model makes of a batch (B, C, T, H, W), normalised."""
    prediction: Tensor = model(batch["data"], batch["mask"], **{name: batch[name] for name in CONTEXT})
    return prediction


def _mean(by_channel: Tensor) -> float:
    """Mean over the channels that have any value."""
    return float(by_channel.nanmean())
