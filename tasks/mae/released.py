"""Released vision models: what is written beside the weights, and how a model is used on other windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from configs.weather_lm import MaeRecipe
from models.weather.sat_swin_mae import SatSwinMAE
from storage.training_set import ChannelStatistics, normalisation
from storage.window_dataset import WindowDataset
from tasks.training.release import Release


def release_config(recipe: MaeRecipe, windows: WindowDataset) -> dict[str, Any]:
    """Return what a model needs, as JSON, to be built and fed again."""
    return {
        "recipe": recipe.model_dump(mode="json"),
        "window": list(windows.training_set.grid.shape),
        "statistics": [statistics.model_dump(mode="json") for statistics in windows.statistics],
    }


@dataclass(frozen=True)
class MaeRelease(Release):
    """A pretrained vision model, with the channels and the statistics of its windows."""

    network: SatSwinMAE
    recipe: MaeRecipe
    statistics: tuple[ChannelStatistics, ...]
    """Of each channel, by which the model's input was normalised, and has to be."""

    @classmethod
    def restore(cls, model: Mapping[str, Any], weights: Mapping[str, Any], folder: Path) -> Self:
        """Return the release that `release_config` describes."""
        time, height, width = model["window"]
        recipe = MaeRecipe.model_validate(model["recipe"])
        statistics = tuple(ChannelStatistics.model_validate(values) for values in model["statistics"])
        network = SatSwinMAE(recipe.model, len(statistics), (time, height, width))
        return cls(network, recipe, statistics)

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels of the model's windows, in their order."""
        return tuple(statistics.channel for statistics in self.statistics)

    def windows(self, store: Path, training_set: Path, split: str) -> WindowDataset:
        """Return windows of any training set, normalised as the model's own were.

        Raises:
            ValueError: other channels, or another window size.
        """
        windows = WindowDataset(store, training_set, split, self.statistics)
        self.check(windows)
        return windows

    def check(self, windows: WindowDataset) -> None:
        """Refuse windows that the model was not trained for.

        Raises:
            ValueError: other channels, another window size, or another normalisation.
        """
        theirs = windows.store.channels
        if theirs != self.channels:
            raise ValueError(
                f"Channel mismatch vs checkpoint: the store has {len(theirs)} channels ({', '.join(theirs)}), but the "
                f"encoder's in_chans is {len(self.channels)} ({', '.join(self.channels)}); ensure dataset "
                "variables/levels sum to the encoder's expected in_chans, in the same order"
            )
        if windows.training_set.grid.shape != self.network.window:
            raise ValueError(
                f"the windows are {windows.training_set.grid.shape} (steps, rows, columns), but the encoder was "
                f"trained on {self.network.window}; set windows.time, height and width to these"
            )
        scaled, expected = (np.stack(normalisation(statistics)) for statistics in (windows.statistics, self.statistics))
        if not np.allclose(scaled, expected, rtol=1e-5):
            raise ValueError(
                "the windows are normalised by other statistics than those that the encoder was trained with; give "
                "WindowDataset the statistics of the release, or pretrain on this training set"
            )
