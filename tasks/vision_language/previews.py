"""What a vision-language model says of validation images while it trains, and where it looks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.vision_language.batch import VlmBatch
from models.vision_language.gaussian_memory import MemoryState
from models.vision_language.microvlm import MicroVLM
from tasks.figures import png_of
from tasks.training.transfer import move
from tasks.vision_language.attention import attention_statistics, text_attention
from tasks.vision_language.describe import Writing, describe
from tasks.vision_language.gaussianity import sliced_epps_pulley
from tasks.vision_language.objective import VlmObjective
from tasks.vision_language.pictures import draw_attention, draw_captions
from tasks.vision_language.samples import VlmSample

IN_KEY = False
"""The objective names this module without importing it: how things look shapes no weights."""
SHOWN = 4


def draw(objective: VlmObjective, model: nn.Module) -> dict[str, bytes]:
    """Return validation images with what the model says of them, and what its prefix and its memory look at."""
    assert isinstance(model, MicroVLM)
    samples, batch = _episode(objective, model)
    texts = describe(model, batch.images[:SHOWN], objective.tokens, objective.design.phrases.describe, Writing(48))
    rows = [(s.image, text, s.text) for s, text in zip(samples, texts, strict=False)]
    return {"validation": png_of(draw_captions(rows)), "attention": png_of(draw_attention(model, batch))}


@torch.no_grad()
def watch(objective: VlmObjective, model: nn.Module) -> dict[str, float]:
    """Return how words attend to an episode's images, how far prefixes are from normal, and how full the memory is."""
    assert isinstance(model, MicroVLM)
    _, batch = _episode(objective, model)
    pooled = model.see(batch.images).pooled
    found = {"attention/divergence": sliced_epps_pulley(pooled.flatten(0, 1))}
    if (weights := text_attention(model, batch)) is not None:
        statistics = attention_statistics(weights, batch.told.learned.bool())
        found |= {name.replace("_", "/", 1): value for name, value in statistics.items()}
    state = model.remember(pooled.unflatten(0, batch.written.shape), batch.written, batch.first)
    left, at_first = (_variances(memory) for memory in (state, model.recall.memory.prior()))
    return {**found, "memory/utilization": float((1 - left / at_first).mean())}


def _variances(state: MemoryState) -> Tensor:
    """Return the variance of every slot of memories (B, slots)."""
    return state.covariance.diagonal(dim1=-2, dim2=-1)


def _episode(objective: VlmObjective, model: MicroVLM) -> tuple[list[VlmSample], VlmBatch]:
    """Return images of the validation split that lie far apart, as one episode."""
    source = objective.samples("validation")
    steps = objective.settings.episode
    samples = [source.sample(k * len(source) // steps, k) for k in range(steps)]
    return samples, move(objective.collate(samples), next(model.parameters()).device)
