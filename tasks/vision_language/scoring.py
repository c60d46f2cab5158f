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

    The control of an image is the one of the next row; no two images are the same. The controls of a memory are one
    that holds the next episode's images at the same steps, there being two episodes or more; one of this episode in
    which the image that is asked about and another one have changed places; and none, with the gate shut.
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
            "tokens": batch.told.learned.sum(1),
            **_recall(model, batch, seen.pooled.unflatten(0, (episodes, steps)), seen.prefix),
        },
        model.alignment.images(seen.pooled),
        model.alignment.texts(embeddings, captions.attended),
    )


def _recall(model: MicroVLM, batch: VlmBatch, pooled: Tensor, prefix: Tensor) -> dict[str, Tensor]:
    """Score recalled texts with the episode's memory and with its controls."""
    rows = torch.arange(batch.episodes, device=prefix.device)
    last = model.last_shown(batch, prefix)
    queries = model.queries(batch)
    question = torch.full_like(rows, batch.written.shape[1])
    images = {"recall": pooled, "recall_other": pooled.roll(-1, 0), "recall_misplaced": _misplaced(batch, pooled)}
    readings = {
        name: model.recall.read(queries, model.remember(shown, batch.written, batch.first))
        for name, shown in images.items()
    }
    asked = {name: reading.of(rows, question) for name, reading in readings.items()}
    nats = {
        name: model.nats(batch.recalled, last, batch.shown, found.content[0], found.scope[0])
        for name, found in asked.items()
    }
    own = asked["recall"]
    shut = torch.full_like(own.scope[0], -torch.inf)
    # Of a question about an image that was seen, and of two without an answer.
    opened = readings["recall"].scope[:, -3:] > 0
    return {
        **nats,
        "recall_without": model.nats(batch.recalled, last, batch.shown, own.content[0], shut),
        "scope_right": opened[:, 0] + (~opened[:, 1:]).double().mean(1),  # a gate that never moves has half
        "scopes": torch.full_like(rows, 2),
        "cue_right": model.recall.step_of(own.query[0]) == batch.asked % model.recall.steps,
        "questions": torch.ones_like(rows),
        "recalled_tokens": batch.recalled.learned.sum(1),
    }


def _misplaced(batch: VlmBatch, pooled: Tensor) -> Tensor:
    """Exchange the image that is asked about with the one that was written after it, the last one with the first; where
    no other was written, with the next of the episode.
    """
    rows = torch.arange(batch.episodes, device=pooled.device)
    asked = batch.asked - batch.first
    other = (asked + 1) % batch.written.sum(1).clamp_min(2)
    places = torch.arange(pooled.shape[1], device=pooled.device).repeat(batch.episodes, 1)
    places[rows, asked], places[rows, other] = other, asked
    return pooled[rows[:, None], places]
