"""Released vision models: what is written beside the weights, and how a model is used on other windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from configs.weather_lm import MaeRecipe
from models.weather.sat_swin_mae import SatSwinMAE
from storage.window_dataset import WindowDataset
from tasks.training.release import Release


def release_config(recipe: MaeRecipe, windows: WindowDataset) -> dict[str, Any]:
    """Return what a model needs, as JSON, to be built and fed again."""
    return {
        "recipe": recipe.model_dump(mode="json"),
        "window": list(windows.training_set.grid.shape),
        "statistics": [statistics.model_dump(mode="json") for statistics in windows.training_set.statistics],
    }


@dataclass(frozen=True)
class MaeRelease(Release):
    """A pretrained vision model, with the channels and the statistics of its windows."""

    network: SatSwinMAE
    recipe: MaeRecipe
    channels: tuple[str, ...]
    statistics: list[dict[str, Any]]
    """Of each channel, by which the model's input was normalised."""

    @classmethod
    def restore(cls, model: Mapping[str, Any], weights: Mapping[str, Any], folder: Path) -> Self:
        """Return the release that `release_config` describes."""
        time, height, width = model["window"]
        recipe = MaeRecipe.model_validate(model["recipe"])
        channels = tuple(statistics["channel"] for statistics in model["statistics"])
        network = SatSwinMAE(recipe.model, len(channels), (time, height, width))
        return cls(network, recipe, channels, model["statistics"])

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
        mean, scale = windows.training_set.normalisation()
        expected = np.array([[s["mean"], s["std"]] for s in self.statistics])
        spread = np.maximum(expected[:, 1], 1e-12)
        off = np.abs(mean - expected[:, 0]) / spread + np.abs(1 / scale / np.where(spread > 1e-9, spread, 1) - 1)
        if (worst := off[expected[:, 1] > 0].max(initial=0.0)) > 1.0:
            raise ValueError(
                f"the training period's statistics are not those that the encoder was trained with (by {worst:.1f} "
                "standard deviations); pretrain on this training set"
            )
