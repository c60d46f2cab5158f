"""What a vision-language model says of validation images while it trains."""

from __future__ import annotations

from torch import nn

from models.vision_language.microvlm import MicroVLM
from tasks.figures import png_of
from tasks.training.transfer import move
from tasks.vision_language.describe import Writing, describe
from tasks.vision_language.objective import VlmObjective
from tasks.vision_language.pictures import draw_attention, draw_captions

IN_KEY = False
"""The objective names this module without importing it: how things look shapes no weights."""
SHOWN = 4


def draw(objective: VlmObjective, model: nn.Module) -> dict[str, bytes]:
    """Return validation images with what the model says of them, and what its prefix and its memory look at."""
    assert isinstance(model, MicroVLM)
    source = objective.samples("validation")
    steps = objective.settings.episode
    samples = [source.sample(k * len(source) // steps, k) for k in range(steps)]
    batch = move(objective.collate(samples), next(model.parameters()).device)
    texts = describe(model, batch.images[:SHOWN], objective.tokens, objective.design.phrases.describe, Writing(48))
    rows = [(s.image, text, s.text) for s, text in zip(samples, texts, strict=False)]
    return {"validation": png_of(draw_captions(rows)), "attention": png_of(draw_attention(model, batch))}
