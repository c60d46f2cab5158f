"""Rows of a batch that stay for several optimiser steps, with a state: deep supervision (arXiv 2510.04871)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Rows = dict[str, Tensor]
"""Tensors (B, ...) by name."""
HALTED = "halted"
"""(B,) bool, an entry of every state: the row is done, and the next step takes another one in its place."""


class CarriedRows:
    """What each micro-batch of this rank keeps from one optimiser step to the next; part of every checkpoint.

    Fresh rows come with every step, and those that find no free place are passed over.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Rows, Rows]] = {}

    def take(self, micro_batch: int, fresh: Rows) -> tuple[Rows, Rows | None]:
        """Return the rows of this step, and the state with which they begin; none before the first step."""
        if micro_batch not in self._kept:
            return fresh, None
        kept, state = (_moved(part, fresh) for part in self._kept[micro_batch])
        halted = state[HALTED]
        return {name: torch.where(_wide(halted, fresh[name]), fresh[name], kept[name]) for name in fresh}, state

    def keep(self, micro_batch: int, rows: Rows, state: Rows) -> None:
        """Hold rows and their state for the next step."""
        assert HALTED in state, "a state says which of its rows are done"
        self._kept[micro_batch] = (rows, state)

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that is kept."""
        return {
            f"{number}.{part}.{name}": tensor
            for number, parts in self._kept.items()
            for part, tensors in zip(("rows", "state"), parts, strict=True)
            for name, tensor in tensors.items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""
        self._kept = {}
        for path, tensor in state.items():
            number, part, name = path.split(".", 2)
            self._kept.setdefault(int(number), ({}, {}))[part == "state"][name] = tensor


def _moved(tensors: Rows, like: Rows) -> Rows:
    device = next(iter(like.values())).device
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _wide(halted: Tensor, like: Tensor) -> Tensor:
    return halted.view(-1, *[1] * (like.dim() - 1))
