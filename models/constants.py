"""Tensors that depend on nothing but a function's arguments are computed once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

import torch

Made = TypeVar("Made")


def constant(make: Callable[..., Made]) -> Callable[..., Made]:
    """Keep what a function makes, to be used with and without gradients.

    What it makes while a graph is traced is not kept: tensors of a graph that is exported hold no values.
    """
    kept = lru_cache(maxsize=64)(make)

    @wraps(make)
    def made(*arguments: Any) -> Made:
        if torch.compiler.is_compiling():
            return make(*arguments)
        with torch.inference_mode(False):
            return kept(*arguments)

    return made
