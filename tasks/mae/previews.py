"""What SatSwinMAE makes of validation windows while it trains."""

from __future__ import annotations

from torch import nn

from tasks.figures import png_of
from tasks.mae.objective import MaeObjective, rebuilt
from tasks.mae.pictures import draw_reconstructions
from tasks.training.transfer import move

IN_KEY = False
"""The objective names this module without importing it: how things look shapes no weights."""


def draw(objective: MaeObjective, model: nn.Module) -> dict[str, bytes]:
    """Return maps of two validation windows: truth, what was shown, what the model made of it, its error."""
    source = objective.source("validation")
    if not len(source):
        return {}
    batch = objective.collate([source.sample(index, index) for index in sorted({0, len(source) // 2})])
    prediction = rebuilt(model, move(batch, next(model.parameters()).device)).float().cpu()
    hidden = objective.hidden.mask(batch)
    return {"validation": png_of(draw_reconstructions(objective.windows, batch, prediction, hidden))}
