"""Packed releases: models of any family whose weights lie as bytes, written, and read without exact weights."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel

from configs.quantise import QuantiseRecipe
from models.packed import pack
from models.ternary import Quantised, quantise
from storage.packed_weights import load_packed, save_packed

_lock = threading.Lock()
_empty: Counter[int] = Counter()
"""By thread, in how many blocks of `without_memory` it is."""
_register = nn.Module.register_parameter


@contextmanager
def without_memory() -> Iterator[None]:
    """Let modules that this thread makes have parameters that take no memory, to be filled by `read_packed`.

    Buffers are as ever, and so is what other threads make meanwhile: pipelines that run side by side open models at any
    time. accelerate's `init_empty_weights` lets theirs be empty too, and all that come later where two of its blocks
    overlap.
    """
    me = threading.get_ident()
    with _lock:
        _empty[me] += 1
        nn.Module.register_parameter = _register_empty  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        with _lock:
            _empty[me] -= 1
            if not +_empty:
                nn.Module.register_parameter = _register  # type: ignore[method-assign]


def _register_empty(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
    _register(module, name, parameter)
    if parameter is not None and _empty[threading.get_ident()]:
        empty = type(parameter)(parameter.to("meta"), requires_grad=parameter.requires_grad)
        vars(empty).update(vars(parameter))
        module._parameters[name] = empty


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
