"""The pictures of a training under way, for those who watch it: they go to W&B and the dashboard, into no asset."""

from __future__ import annotations

from torch import nn

from tasks.figures import png_of
from tasks.training.curves import draw_curves
from tasks.training.history import History
from tasks.training.objective import Objective, imported

IN_KEY = False
"""The loop imports this module by its name: how things look shapes no weights."""


def previews(objective: Objective, model: nn.Module) -> dict[str, bytes]:
    """Return what the objective's `PREVIEWS` draws, as PNG by name."""
    drawn: dict[str, bytes] = imported(objective.PREVIEWS)(objective, model) if objective.PREVIEWS else {}
    return drawn


def curves(history: History) -> bytes:
    """Return the curves so far as PNG."""
    return png_of(draw_curves(history.all_rows()))
