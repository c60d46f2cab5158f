"""Pictures of vision-language models: captions under their images, what prefixes and memories look at, scores."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from models.vision_language.batch import VlmBatch
from models.vision_language.microvlm import MicroVLM
from tasks.figures import subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3
Row = tuple[Tensor, str, str]
"""Image (3, side, side), what a model says, and what people say."""


def draw_captions(rows: Sequence[Row]) -> Figure:
    """Draw images with what a model says of them above what people say."""
    columns = min(COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    figure, axes = subplots(lines, columns, figsize=(4 * columns, 4.4 * lines), layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (image, said, true) in zip(axes.flat, rows, strict=False):
        axis.imshow(image.permute(1, 2, 0).numpy())
        axis.set_title(_wrapped(f"model: {said}") + "\n" + _wrapped(f"list: {true}"), fontsize=8, loc="left")
    return figure


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 52)[:4]).replace("$", r"\$")


@torch.no_grad()
def draw_attention(model: MicroVLM, batch: VlmBatch, names: Sequence[str] = ()) -> Figure:
    """Draw where each prefix token of an image looks, and which slots an episode's codes and questions address."""
    seen = model.see(batch.images[:1])
    maps = model.adapter.looked_at(seen.patches)[0, :, 1:].cpu()
    side = int(maps.shape[1] ** 0.5)
    episodes, steps = batch.written.shape
    pooled = model.see(batch.images).pooled.unflatten(0, (episodes, steps))
    state = model.remember(pooled, batch.written, batch.first)
    address, _ = model.recall.memory.complete(model.recall.codes(pooled, batch.first), state)
    shown = min(len(maps), 24)
    figure, axes = subplots(2, 1, figsize=(9, 4.6), layout="constrained", height_ratios=[1, 2])
    tiled = np.concatenate([maps[k].view(side, side).numpy() for k in range(shown)], 1)
    axes[0].imshow(tiled, cmap="magma")
    axes[0].set_title(f"what the first {shown} prefix tokens look at", fontsize=9)
    axes[0].set_axis_off()
    largest = float(address[0].abs().max()) or 1.0
    drawn = axes[1].imshow(
        address[0].cpu().numpy(), aspect="auto", cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest"
    )
    axes[1].set(xlabel="slot of the memory", ylabel="image of the episode", yticks=range(steps))
    axes[1].set_title("weights by which each image of an episode is addressed", fontsize=9)
    figure.colorbar(drawn, ax=axes[1])
    return figure


def draw_text_attention(weights: Tensor, words: Sequence[str]) -> Figure:
    """Draw how much each word of a text attends to each prefix token, (L, K)."""
    figure, axis = subplots(figsize=(7, 0.22 * len(words) + 1.5), layout="constrained")
    drawn = axis.imshow(weights.numpy(), aspect="auto", cmap="magma", interpolation="nearest")
    axis.set(xlabel="prefix token of the image", yticks=range(len(words)))
    axis.set_yticklabels([word.replace("$", r"\$") for word in words], fontsize=7)
    axis.set_title("attention of words to the image, mean over layers and heads", fontsize=9)
    figure.colorbar(drawn, ax=axis)
    return figure


def draw_scores(tables: Mapping[str, Any]) -> Figure:
    """Draw nats per token of every model with the true image, another one and none; and recalled with every memory."""
    figure, axes = subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    named = (
        {"nll": "its image", "nll_shuffled": "another image", "nll_blind": "no image"},
        {
            "recall": "its memory",
            "recall_other": "another memory",
            "recall_misplaced": "the image in another's place",
            "recall_without": "no memory",
        },
    )
    for axis, labels in zip(axes, named, strict=True):
        width = 0.8 / len(labels)
        for at, (metric, label) in enumerate(labels.items()):
            places = np.arange(len(tables)) + width * (at - (len(labels) - 1) / 2)
            axis.bar(places, [table["nats"][metric] for table in tables.values()], 0.9 * width, label=label)
        axis.set_xticks(range(len(tables)), list(tables))
        axis.set_ylabel("nats per token")
        axis.legend(fontsize=8)
    return figure
