"""When a model may look at its own numbers."""

from __future__ import annotations

import torch
from torch import Tensor

FREE_ON = frozenset({"cpu"})
"""Devices that have computed a value by the time that a program can ask for it."""


def reads_are_free(tensor: Tensor) -> bool:
    """Say whether a program may read a tensor's values, to spare work, without anybody waiting for it.

    A GPU works far behind its program, and every read waits until it has caught up; compiled code ends at every read.
    There the work is done instead.
    """
    return tensor.device.type in FREE_ON and not torch.compiler.is_compiling()
