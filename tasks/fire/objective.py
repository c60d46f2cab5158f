"""What a fire model is trained towards: the next frame of training fires, judged on validation fires."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from configs.wildfire import FireRecipe
from models.fire.batch import FireBatch
from models.fire.build import build_fire_model, parameter_groups
from models.fire.losses import FireLoss
from storage.fire_split import Part
from tasks.fire.dataset import FireDataset, FireSample, collate
from tasks.fire.released import FireRelease, open_part, release_config
from tasks.fire.scores import CALIBRATION_BINS, SampleHistograms, Scorer, choose_threshold, measures
from tasks.training.loader import Weigher, ordered_batches
from tasks.training.objective import Objective
from tasks.training.share import Share


class FireObjective(Objective):
    """Next-frame prediction, configured by `cache` and `split` (folders) and `recipe`."""

    RELEASE = FireRelease
    PREVIEWS = "tasks.fire.previews:draw"

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.cache, self.split = Path(config["cache"]), Path(config["split"])
        self.recipe = FireRecipe.model_validate(config["recipe"])
        self.training = self._part("train", training=True)
        self.loss = FireLoss(self.recipe.loss, self.recipe.model)
        self.coefficients = self.loss.coefficients

    def _part(self, part: Part, *, training: bool = False) -> FireDataset:
        return open_part(self.cache, self.split, part, self.recipe.inputs, training=training)

    def build(self) -> nn.Module:
        """Return the recipe's model."""
        return build_fire_model(self.recipe.model, self.training.spec)

    def compile(self, model: nn.Module) -> None:
        """Compile the search of the front; convolutions, whose shapes differ between batches, stay as they are."""
        for module in model.modules():
            if compile_search := getattr(module, "compile_search", None):
                compile_search()

    def groups(self, model: nn.Module) -> dict[str, list[nn.Parameter]]:
        """Return the parameters that learn at `temporal` and at `spatial` rates."""
        return parameter_groups(model)

    def source(self, part: str) -> FireDataset:
        """Return the training samples: windows around the front, turned at random."""
        assert part == "train", "the loop trains on nothing else"
        return self.training

    @staticmethod
    def collate(samples: Sequence[FireSample]) -> FireBatch:
        """Pad samples to a batch."""
        return collate(samples)

    def weigher(self) -> Weigher:
        """Return the function of each loss term's denominator."""
        return self.loss.weights

    def losses(self, model: nn.Module, batch: FireBatch) -> dict[str, Tensor]:
        """Return each loss term's sum."""
        return self.loss.sums(model(batch), batch)

    def evaluate(self, model: nn.Module, share: Share) -> dict[str, float]:
        """Return scores on validation fires at the threshold that suits them best."""
        scorer = Scorer()
        for batch in ordered_batches(share, self._part("validation"), collate, batch_size=1):
            scorer.add_batch(torch.sigmoid(model(batch).logits), batch)
        samples = gather(scorer.histograms(), share)
        threshold = choose_threshold(samples)
        values = measures(samples, threshold, CALIBRATION_BINS)
        return {"threshold": threshold, **{name: float(value[0]) for name, value in values.items()}}

    def release_config(self) -> dict[str, Any]:
        """Return the recipe, the data's shape, and how raw data has to be decoded and standardised."""
        return release_config(self.recipe, self.training)


def gather(samples: SampleHistograms, share: Share) -> SampleHistograms:
    """Return the histograms of all ranks' samples."""
    values = {f.name: torch.from_numpy(getattr(samples, f.name)) for f in fields(samples)}
    return SampleHistograms(**{name: share.gather(value).numpy() for name, value in values.items()})
