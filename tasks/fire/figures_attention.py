"""What the temporal layers look at: attention of each token's last frame over its history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from storage.fire_split import Part
from tasks.figures import subplots
from tasks.fire import palette
from tasks.fire.evaluation import Contender, batches_of_fires
from tasks.fire.figures_scores import tidy

if TYPE_CHECKING:
    from torch import Tensor

    from models.fire.batch import FireBatch

KINDS = {"front": palette.GROWTH, "burnt out": palette.BURNT, "far from fire": palette.COPY_LAST}
"""Kinds of tokens and their colours: `front` is partly burnt or beside a burning token, `burnt out` burns all over."""


@dataclass(frozen=True)
class AttentionOverTime:
    """Attention sums; divide by `tokens` for means."""

    sums: NDArray[np.float64]
    """(layers, kinds, L + 1, L): by length n of the history and by age, where 0 is the last frame; heads averaged."""
    tokens: NDArray[np.int64]
    """(kinds, L + 1) valid tokens by length of the history."""

    def mean(self, layer: int, kind: int) -> NDArray[np.float64]:
        """Return the mean attention (L + 1, L) by length of the history and age; NaN where there is none."""
        counts = self.tokens[kind][:, None]
        means = np.divide(self.sums[layer, kind], counts, out=np.full(self.sums.shape[2:], np.nan), where=counts > 0)
        length, age = np.indices(means.shape)
        return np.where(age < length, means, np.nan)


def collect_attention(
    contender: Contender, part: Part, fires: Sequence[int], batch_size: int
) -> AttentionOverTime | None:
    """Sum a contender's attention over all samples of some fires; None when it has none, or no history to look at."""
    import torch

    samples = contender.samples(part)
    if contender.attention is None or samples.history < 2:
        return None
    most = samples.history
    sums: NDArray[np.float64] | None = None
    tokens = np.zeros((len(KINDS), most + 1), np.int64)
    with torch.inference_mode():
        for batch in batches_of_fires(samples, fires, batch_size):
            layers = [layer.float().mean(dim=2).cpu().numpy() for layer in contender.attention(batch)]
            sums = np.zeros((len(layers), len(KINDS), most + 1, most)) if sums is None else sums
            kinds = token_kinds(batch).cpu().numpy()
            for i, length in enumerate(batch.time_valid.sum(dim=1).tolist()):
                for kind in range(len(KINDS)):
                    chosen = kinds[i] == kind
                    tokens[kind, length] += chosen.sum()
                    for index, layer in enumerate(layers):
                        newest_first = layer[i, chosen][:, ::-1][:, :length]
                        sums[index, kind, length, :length] += newest_first.sum(axis=0)
    return None if sums is None else AttentionOverTime(sums, tokens)


def token_kinds(batch: FireBatch) -> Tensor:
    """Return the kind of every token in the last frame, (B, N): its position in `KINDS`, -1 where not valid."""
    import torch
    from torch.nn import functional

    share = batch.fire[:, -1].unflatten(1, batch.grid)
    burning = (share > 0).float()[:, None]
    beside = functional.max_pool2d(burning, 3, stride=1, padding=1)[:, 0] > 0
    full = share > 0.999
    kind = torch.where(full, 1, torch.where(beside, 0, 2)).flatten(1)
    return torch.where(batch.token_valid, kind, -1)


def draw_attention(attention: AttentionOverTime, name: str) -> Figure:
    """Draw per layer: mean attention of front tokens by history and age, and kinds of tokens against even attention."""
    layers = len(attention.sums)
    figure, axes = subplots(
        2, layers, figsize=(3.3 * layers + 1.4, 5.8), squeeze=False, layout="constrained", sharey="row"
    )
    lengths = [n for n in range(2, attention.tokens.shape[1]) if attention.tokens[0, n] > 0]
    for layer in range(layers):
        shown = attention.mean(layer, 0)[lengths] if lengths else np.full((1, attention.sums.shape[-1]), np.nan)
        picture = axes[0, layer].imshow(shown, vmin=0, vmax=1, cmap="magma", aspect="auto")
        axes[0, layer].set_yticks(range(len(lengths)), [str(n) for n in lengths])
        _ages(axes[0, layer], shown.shape[1])
        tidy(axes[0, layer], f"layer {layer + 1}: front tokens", "", "frames of history" if layer == 0 else "")
        axes[0, layer].grid(visible=False)
        _draw_kinds(axes[1, layer], attention, layer)
        tidy(axes[1, layer], "", "age of the frame (0: last)", "attention / even attention" if layer == 0 else "")
    bar = figure.colorbar(picture, ax=axes[0].tolist(), pad=0.01)
    bar.set_label("mean attention", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    handles, names = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=8, frameon=False)
    figure.suptitle(f"{name}: which frames the last one attends to", fontsize=10, x=0.01, ha="left")
    return figure


def _draw_kinds(axes: Axes, attention: AttentionOverTime, layer: int) -> None:
    """Lines by kind of token: attention x length, so that 1 is even, averaged over tokens that have such a frame."""
    most = attention.sums.shape[-1]
    axes.axhline(1, color="#999999", linewidth=1, linestyle="--", label="even")
    length, age = np.indices(attention.sums.shape[2:])
    exists = (age < length) & (length > 1)
    for kind, (name, colour) in enumerate(KINDS.items()):
        weighted = (attention.sums[layer, kind] * length * exists).sum(axis=0)
        counted = (attention.tokens[kind][:, None] * exists).sum(axis=0)
        line = np.divide(weighted, counted, out=np.full(most, np.nan), where=counted > 0)
        axes.plot(range(most), line, "o-", markersize=3, color=colour, label=name)
    highest = float(np.nanmax(np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.get_lines()])))
    axes.set_ylim(0, max(highest * 1.15, axes.get_ylim()[1] if layer else 0))
    _ages(axes, most)


def _ages(axes: Axes, count: int) -> None:
    axes.set_xticks(range(count), [str(age) for age in range(count)])
