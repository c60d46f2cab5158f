"""What a fire model makes of validation fires while it trains."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.fire.batch import FireBatch
from tasks.figures import png_of
from tasks.fire.figures_maps import draw_samples
from tasks.fire.objective import FireObjective
from tasks.fire.released import open_part
from tasks.training.transfer import move

IN_KEY = False
"""The objective names this module without importing it: how things look shapes no weights."""
SHOWN = 3
"""Validation samples that are drawn after each evaluation."""


def draw(objective: FireObjective, model: nn.Module) -> dict[str, bytes]:
    """Return a map of a few validation fires: truth, probability, and what is wrong at a probability of 0.5."""
    samples = open_part(objective.cache, objective.split, "validation", objective.recipe.inputs)
    if not len(samples):
        return {}
    device = next(model.parameters()).device

    def predict(batch: FireBatch) -> Tensor:
        return torch.sigmoid(model(move(batch, device)).logits)

    chosen = sorted({len(samples) * part // (2 * SHOWN) for part in range(1, 2 * SHOWN, 2)})
    return {"validation": png_of(draw_samples(predict, samples, chosen))}
