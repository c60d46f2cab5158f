"""Packed releases: models of any family whose weights lie as bytes, written, and read without exact weights."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel

from configs.quantise import QuantiseRecipe
from models.packed import pack
from models.ternary import Quantised, quantise
from storage.packed_weights import load_packed, save_packed


def without_memory() -> AbstractContextManager[None]:
    """Let modules be made whose parameters take no memory, to be filled by `read_packed`; buffers are as ever."""
    from accelerate import init_empty_weights

    return init_empty_weights(include_buffers=False)


def quantise_once(network: nn.Module, recipe: QuantiseRecipe) -> None:
    """Let the layers that a recipe names compute quantised, in place, unless they were trained so."""
    if not any(isinstance(module, Quantised) for module in network.modules()):
        quantise(network, recipe)


def pack_into(path: Path, network: nn.Module, recipe: QuantiseRecipe) -> None:
    """Pack a network that computes quantised, in place, and write it."""
    pack(network, recipe.layout)
    save_packed(path, network.state_dict(), recipe.layout)


def read_packed(path: Path, network: nn.Module, recipe: QuantiseRecipe) -> None:
    """Turn a network that was made `without_memory` into its packed form, and read the weights of a file into it.

    Heads that are their embeddings are tied anew, for parameters without memory are each their own.

    Raises:
        ValueError: the file holds other weights than these, or not what was written.
    """
    for module in network.modules():
        if isinstance(module, PreTrainedModel):
            module.tie_weights()
    quantise_once(network, recipe)
    pack(network, recipe.layout)
    load_packed(path, network, recipe.layout)
