"""Pictures and figures of a training under way, for those who watch it, in W&B and on the dashboard; in no asset.

What cannot be drawn or computed is said to be missing; no training ends for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import nn

from models.build import imported
from tasks.figures import png_of
from tasks.training.curves import draw_curves
from tasks.training.history import History
from tasks.training.objective import Objective

IN_KEY = False
"""The loop imports this module by its name: how things look shapes no weights."""

Say = Callable[[str], None]
Value = TypeVar("Value")


def previews(objective: Objective, model: nn.Module, say: Say) -> Mapping[str, bytes]:
    """Return what the objective's `PREVIEWS` draws, as PNG by name."""
    return _tried(lambda: imported(objective.PREVIEWS)(objective, model), say) if objective.PREVIEWS else {}


def watched(objective: Objective, model: nn.Module, say: Say) -> Mapping[str, float]:
    """Return the figures of the objective's `WATCHED`, by section and name."""
    return _tried(lambda: imported(objective.WATCHED)(objective, model), say) if objective.WATCHED else {}


def curves(history: History, say: Say) -> Mapping[str, bytes]:
    """Return the curves so far, as PNG by name."""
    return _tried(lambda: {"curves": png_of(draw_curves(history.all_rows()))}, say)


def _tried(make: Callable[[], Mapping[str, Value]], say: Say) -> Mapping[str, Value]:
    try:
        return make()
    except Exception as error:
        say(f"a preview is missing ({type(error).__name__}: {error})")
        return {}
