"""The pictures of a training under way, for those who watch it: they go to W&B and the dashboard, into no asset.

A picture that cannot be drawn is said to be missing; no training ends for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from models.build import imported
from tasks.figures import png_of
from tasks.training.curves import draw_curves
from tasks.training.history import History
from tasks.training.objective import Objective

IN_KEY = False
"""The loop imports this module by its name: how things look shapes no weights."""

Say = Callable[[str], None]


def previews(objective: Objective, model: nn.Module, say: Say) -> Mapping[str, bytes]:
    """Return what the objective's `PREVIEWS` draws, as PNG by name."""
    return _drawn(lambda: imported(objective.PREVIEWS)(objective, model), say) if objective.PREVIEWS else {}


def curves(history: History, say: Say) -> Mapping[str, bytes]:
    """Return the curves so far, as PNG by name."""
    return _drawn(lambda: {"curves": png_of(draw_curves(history.all_rows()))}, say)


def _drawn(draw: Callable[[], Mapping[str, bytes]], say: Say) -> Mapping[str, bytes]:
    try:
        return draw()
    except Exception as error:
        say(f"a picture could not be drawn ({type(error).__name__}: {error})")
        return {}
