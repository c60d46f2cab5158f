"""What a narrator writes about a validation window while it trains."""

from __future__ import annotations

from torch import nn

from models.weather.narrator import Narrator
from tasks.figures import png_of
from tasks.narration.objective import NarratorObjective
from tasks.narration.pictures import draw_told
from tasks.training.transfer import move

IN_KEY = False
"""The objective names this module without importing it: how things look shapes no weights."""


def draw(objective: NarratorObjective, model: nn.Module) -> dict[str, bytes]:
    """Return maps of a validation window, with the likeliest text about it beside what people say of it."""
    assert isinstance(model, Narrator)
    samples, tokens = objective.source("validation"), objective.tokens
    index = len(samples) // 2
    batch = move(objective.collate([samples.told(index, "")]), next(model.parameters()).device)
    ids = model.write(
        batch,
        model.soft_prompts(batch),
        max_new_tokens=objective.recipe.max_caption_tokens,
        temperature=0,
        top_p=1,
        end=tokens.end,
    )
    pair = samples.pairs[index]
    return {
        "validation": png_of(draw_told(samples.windows, [(pair.window, pair.box, tokens.text(ids[0]), pair.texts)]))
    }
