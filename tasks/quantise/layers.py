"""Fewer layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def prune_layers(layers: nn.ModuleList, keep: Sequence[int]) -> nn.ModuleList:
    """Return the layers with these places, in this order; caches of keys and values are numbered anew.

    Raises ValueError where no layer is kept, one twice, or one that there is not.
    """
    if not keep or len(set(keep)) < len(keep) or not set(keep) <= set(range(len(layers))):
        raise ValueError(f"layers {list(keep)} cannot be kept; name some of 0 to {len(layers) - 1}, each once")
    kept = nn.ModuleList(layers[place] for place in keep)
    for place, layer in enumerate(kept):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):  # where a layer of transformers finds its part of the cache
                vars(module)["layer_idx"] = place
    return kept
