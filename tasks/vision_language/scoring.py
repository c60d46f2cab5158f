"""Likelihoods of texts with true, other and no images, and with true, other and no memories."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.vision_language.batch import VlmBatch
from models.vision_language.microvlm import MicroVLM


@dataclass(frozen=True)
class BatchScores:
    """What one batch yields, per image or per episode."""

    sums: dict[str, Tensor]
    """By name: nats of each text (B,) or recalled text (episodes,), and what they are to be divided by."""
    images: Tensor
    """(B, D) unit vectors."""
    texts: Tensor
    """(B, D) unit vectors."""


def score_batch(model: MicroVLM, batch: VlmBatch) -> BatchScores:
    """Score a batch of a model in evaluation mode.

    The control of an image is the one of the next row, the control of a memory that of the next episode: there are two
    episodes or more, and no two images are the same. Without a memory its gate is shut.
    """
    episodes, steps = batch.written.shape
    assert episodes > 1, "a single episode has no other one for a control"
    seen = model.see(batch.images)
    everything = torch.ones(len(batch.images), dtype=torch.bool, device=batch.images.device)
    captions = batch.captions
    embeddings = model.language.embed_tokens(captions.tokens)
    return BatchScores(
        {
            "nll": model.nats(batch.told, seen.prefix, everything),
            "nll_shuffled": model.nats(batch.told, seen.prefix.roll(-1, 0), everything),
            "nll_blind": model.nats(batch.told, seen.prefix, ~everything),
            "tokens": batch.told.learned.sum(-1),
            **_recall(model, batch, seen.pooled.unflatten(0, (episodes, steps)), seen.prefix),
        },
        model.alignment.images(seen.pooled),
        model.alignment.texts(embeddings, captions.attended),
    )


def _recall(model: MicroVLM, batch: VlmBatch, pooled: Tensor, prefix: Tensor) -> dict[str, Tensor]:
    """Score recalled texts with the episode's memory, with that of the next episode, and with none."""
    rows = torch.arange(batch.episodes, device=prefix.device)
    last = model.last_shown(batch, prefix)
    queries = model.queries(batch)
    question = torch.full_like(rows, batch.written.shape[1])
    nats = {}
    for name, shift in (("recall", 0), ("recall_other", 1)):
        state = model.remember(pooled.roll(-shift, 0), batch.written.roll(-shift, 0), batch.first)
        reading = model.recall.read(queries, state)
        own = reading.of(rows, question)
        nats[name] = model.nats(batch.recalled, last, batch.shown, own.content[0], own.scope[0])
        if not shift:
            shut = torch.full_like(own.scope[0], -torch.inf)
            nats["recall_without"] = model.nats(batch.recalled, last, batch.shown, own.content[0], shut)
            opened = reading.scope[:, -3:] > 0  # for a question about an image that was seen, and two without an answer
            nats["scope_right"] = opened[:, 0] + (~opened[:, 1:]).double().mean(-1)  # a gate that never moves has half
            nats["scopes"] = torch.full_like(rows, 2)
            nats["cue_right"] = model.recall.step_of(own.query[0]) == batch.asked % model.recall.steps
            nats["questions"] = torch.ones_like(rows)
    return {**nats, "recalled_tokens": batch.recalled.learned.sum(-1)}
