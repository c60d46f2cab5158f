"""Losses that keep a quantised model near the exact one it was made from (BitNet Distillation, arXiv 2510.13998)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

ATTENTION = ("q_proj", "k_proj", "v_proj")
"""What transformers calls the layers that make queries, keys and values, in the order in which it computes them."""


def logits_distillation(student: Tensor, teacher: Tensor, weights: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the sum over tokens of weight x T^2 KL(teacher || student), in nats.

    Both distributions are softened by the temperature T; T^2 keeps the size of the gradient (arXiv 1503.02531).

    Args:
        student: logits (..., V).
        teacher: logits (..., V), which get no gradient.
        weights: of each token (...), 0 where it does not count.
        temperature: above 0.
    """
    theirs = (teacher.detach().float() / temperature).log_softmax(-1)
    ours = (student.float() / temperature).log_softmax(-1)
    return temperature**2 * _divergence(ours, theirs, weights)


def relation_distillation(student: Sequence[Tensor], teacher: Sequence[Tensor], attended: Tensor, heads: int) -> Tensor:
    """Return how far the attention relations of two models are apart, in nats (MiniLM v2, arXiv 2012.15828).

    A relation is the softmax of the scaled products of every token's query with all queries; likewise keys, and
    values. Channels are split anew into `heads` relation heads, so models of other widths or heads compare too. The
    divergences KL(teacher || student) are averaged over relation heads, and summed over tokens and relations.

    Args:
        student: queries, keys and values of one layer, each (B, S, width); the width may differ between them.
        teacher: likewise, which get no gradient.
        attended: bool (B, S), false at padding, which neither counts nor is related to.
        heads: relation heads; they divide every width.

    Raises:
        ValueError: `heads` does not divide a width.
    """
    padding = ~attended[:, None, None, :]
    weights = attended[:, None, :].expand(-1, heads, -1).float() / heads
    pairs = zip(student, teacher, strict=True)
    parts = [
        _divergence(_relation(ours, heads, padding), _relation(theirs.detach(), heads, padding), weights)
        for ours, theirs in pairs
    ]
    return sum(parts[1:], parts[0])


@contextmanager
def attention_states(block: nn.Module) -> Iterator[list[list[Tensor]]]:
    """Give a list to which every forward pass of a block adds its queries, keys and values, each (B, S, width).

    Raises ValueError for a block that has no such layers.
    """
    layers = {name.rpartition(".")[2]: layer for name, layer in block.named_modules()}
    if absent := set(ATTENTION) - layers.keys():
        raise ValueError(
            f"{type(block).__name__} has no {', '.join(sorted(absent))}, so it has no relations to learn from; set "
            "weights.relations to 0"
        )
    passes: list[list[Tensor]] = []

    def keep(layer: nn.Module, _: Any, output: Tensor) -> None:
        if layer is layers[ATTENTION[0]]:
            passes.append([])
        passes[-1].append(output)

    with ExitStack() as stack:
        for name in ATTENTION:
            stack.callback(layers[name].register_forward_hook(keep).remove)
        yield passes


def _relation(states: Tensor, heads: int, padding: Tensor) -> Tensor:
    """Return log probabilities (B, heads, S, S) from (B, S, width); `padding` broadcasts to them."""
    if states.shape[-1] % heads:
        raise ValueError(f"{heads} relation heads do not divide a width of {states.shape[-1]}; choose a divisor")
    split = states.float().unflatten(-1, (heads, -1)).transpose(1, 2)
    products = split @ split.transpose(-1, -2) / split.shape[-1] ** 0.5
    lowest = -1e9  # not -inf: a row of padding alone would give NaN, in gradients too
    return products.masked_fill(padding, lowest).log_softmax(-1)


def _divergence(ours: Tensor, theirs: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum of KL(theirs || ours) over the last axis of log probabilities."""
    each = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)
    return (each * weights).sum()
