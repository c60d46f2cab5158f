"""Zeros around the weights of a decoder, so that rows fill whole blocks, while the logits stay what they are.

Hidden units, heads and intermediate units that are added have weights of zero on both sides. Heads are added to each
group that shares a key-value head, so that no head changes its partner. A root mean square norm over h' instead of h
units divides by a mean that is h / h' of what it was: weights times sqrt(h / h') and epsilon times h / h' undo that.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tasks.quantise.decoder import Codes, Decoder, Floats, Weight

Kind = TypeVar("Kind", bound=np.generic)
Places = NDArray[np.intp]
"""Where the old units stand among the new ones."""

AXES = {
    "embed_tokens.weight": ("vocabulary", "hidden"),
    "lm_head.weight": ("vocabulary", "hidden"),
    "q_proj.weight": ("queries", "hidden"),
    "k_proj.weight": ("keys", "hidden"),
    "v_proj.weight": ("keys", "hidden"),
    "o_proj.weight": ("hidden", "queries"),
    "gate_proj.weight": ("intermediate", "hidden"),
    "up_proj.weight": ("intermediate", "hidden"),
    "down_proj.weight": ("hidden", "intermediate"),
    "q_proj.bias": ("queries",),
    "k_proj.bias": ("keys",),
    "v_proj.bias": ("keys",),
    "norm.weight": ("hidden",),
}
"""What the axes of a weight run over, by the end of its name."""


def padded(decoder: Decoder, multiple: int = 256) -> Decoder:
    """Return a decoder with the same logits whose linear layers have multiples of so many inputs.

    Its hidden units are then as many as all its heads have, which llama.cpp takes for granted.
    """
    wide = replace(decoder, hidden=_width(decoder, multiple), intermediate=_up(decoder.intermediate, multiple))
    wide = replace(wide, heads=wide.hidden // decoder.head_width)
    if _sizes(wide) == _sizes(decoder):
        return decoder
    places, share = _places(decoder, wide), decoder.hidden / wide.hidden
    return replace(
        wide,
        epsilon=decoder.epsilon * share,
        weights={name: _pad(name, weight, places, _sizes(wide), share) for name, weight in decoder.weights.items()},
    )


def _width(decoder: Decoder, multiple: int) -> int:
    """Return the fewest units that hold the hidden ones, or as many heads in each group, in whole multiples."""
    step = math.lcm(multiple, decoder.kv_heads * decoder.head_width)
    return _up(max(decoder.hidden, decoder.heads * decoder.head_width), step)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _sizes(decoder: Decoder) -> dict[str, int]:
    return {
        "vocabulary": decoder.vocabulary,
        "hidden": decoder.hidden,
        "queries": decoder.heads * decoder.head_width,
        "keys": decoder.kv_heads * decoder.head_width,
        "intermediate": decoder.intermediate,
    }


def _places(old: Decoder, new: Decoder) -> dict[str, Places]:
    places: dict[str, Places] = {axis: np.arange(size) for axis, size in _sizes(old).items()}
    heads = np.arange(new.heads).reshape(new.kv_heads, -1)[:, : old.heads // old.kv_heads].reshape(-1)
    places["queries"] = (heads[:, None] * old.head_width + np.arange(old.head_width)).reshape(-1)
    return places


def _pad(name: str, weight: Weight, places: dict[str, Places], sizes: dict[str, int], share: float) -> Weight:
    axes = next((axes for end, axes in AXES.items() if name.endswith(end)), None)
    if axes is None:
        raise ValueError(f"weight {name} is of no kind that a Qwen2 or Llama decoder has")
    if isinstance(weight, Codes):
        codes = _spread(weight.codes, axes, places, sizes)
        if _torn(weight, axes, places):
            raise ValueError(
                f"weight {name} has a scale for each group of inputs, and heads of this width tear groups; choose int8 "
                "for it"
            )
        return Codes(codes, _spread_scales(weight, axes, places, sizes), weight.bits)
    spread = _spread(weight, axes, places, sizes)
    if name.endswith("norm.weight"):
        spread *= share**0.5
    return spread


def _torn(weight: Codes, axes: tuple[str, ...], places: dict[str, Places]) -> bool:
    """Say whether inputs that share a scale would stand apart."""
    groups = weight.scales.shape[1]
    if groups == 1:
        return False
    grouped = places[axes[1]].reshape(groups, -1)
    size = grouped.shape[1]
    return bool((grouped[:, 0] % size).any() or (grouped - grouped[:, :1] != np.arange(size)).any())


def _spread(
    values: NDArray[Kind], axes: tuple[str, ...], places: dict[str, Places], sizes: dict[str, int]
) -> NDArray[Kind]:
    wide = np.zeros([sizes[axis] for axis in axes], values.dtype)
    wide[np.ix_(*(places[axis] for axis in axes))] = values
    return wide


def _spread_scales(weight: Codes, axes: tuple[str, ...], places: dict[str, Places], sizes: dict[str, int]) -> Floats:
    rows, groups = weight.scales.shape
    if (rows, groups) == (1, 1):
        return weight.scales
    outputs, inputs = axes
    size = weight.codes.shape[1] // groups
    firsts = np.zeros(1, int) if groups == 1 else places[inputs][::size]
    wide = np.zeros((sizes[outputs], 1 if groups == 1 else sizes[inputs] // size), weight.scales.dtype)
    wide[np.ix_(places[outputs], firsts // size)] = weight.scales
    return wide
