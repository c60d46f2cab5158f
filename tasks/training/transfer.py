"""Batches on their way to a device: packed into one buffer, and moved while the step before them is at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from itertools import islice
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

ALIGNMENT = 64
"""Every tensor of a packed batch begins at a multiple of so many bytes."""


class MicroBatch(NamedTuple):
    """What one forward pass works on."""

    indices: list[int]
    """Numbers of the samples."""
    batch: Any
    weights: dict[str, float]
    """By loss term, what the batch adds to the denominator."""


def move(batch: Any, device: torch.device | str) -> Any:
    """Return a batch on a device: the tensors of dicts, lists, tuples and dataclasses; all else stays as it is."""
    if isinstance(batch, Packed):
        return batch.unpack(device)
    return _replaced(batch, Tensor, lambda tensor: tensor.to(device, non_blocking=True))


def _replaced(batch: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    if isinstance(batch, kind):
        return function(batch)
    if isinstance(batch, dict):
        return {name: _replaced(value, kind, function) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        values = [_replaced(value, kind, function) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{f.name: _replaced(getattr(batch, f.name), kind, function) for f in fields(batch)})
    return batch


class _Slot(NamedTuple):
    """Where a tensor lies in the buffer of a packed batch."""

    first: int
    stop: int
    dtype: torch.dtype
    shape: torch.Size

    def view(self, buffer: Tensor) -> Tensor:
        return buffer[self.first : self.stop].view(self.dtype).view(self.shape)


class Packed:
    """A batch whose tensors lie in one buffer: one copy pins it, one more takes it to a device."""

    def __init__(self, batch: Any) -> None:
        tensors: list[tuple[_Slot, Tensor]] = []
        size = 0

        def place(tensor: Tensor) -> _Slot:
            nonlocal size
            slot = _Slot(size, size + tensor.numel() * tensor.element_size(), tensor.dtype, tensor.shape)
            tensors.append((slot, tensor))
            size = -(-slot.stop // ALIGNMENT) * ALIGNMENT
            return slot

        self._slots = _replaced(batch, Tensor, place)
        self._buffer = torch.empty(size, dtype=torch.uint8)
        for slot, tensor in tensors:
            slot.view(self._buffer).copy_(tensor)

    def pin_memory(self) -> Self:
        """Take the buffer to pinned memory; DataLoader calls this in a thread of its own."""
        self._buffer = self._buffer.pin_memory()
        return self

    def unpack(self, device: torch.device | str) -> Any:
        """Return the batch on a device."""
        buffer = self._buffer.to(device, non_blocking=True)
        return _replaced(self._slots, _Slot, lambda slot: slot.view(buffer))


class Ahead:
    """Step by step the micro-batches on a device; a GPU gets those of the next step while it is at work."""

    def __init__(self, batches: Iterator[MicroBatch], accumulation: int, device: torch.device) -> None:
        self._batches, self._accumulation, self._device = batches, accumulation, device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._moved: list[MicroBatch] = []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[MicroBatch]:
        micro_batches = self._moved or self._load()
        self._moved = []
        if not micro_batches:
            raise StopIteration
        if self._stream is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._stream)
            _replaced(micro_batches, Tensor, lambda tensor: tensor.record_stream(current))
        return micro_batches

    def prefetch(self) -> None:
        """Begin to move the next step's micro-batches; a CPU, which has nothing to wait for, leaves them for later."""
        if self._stream is not None:
            with torch.cuda.stream(self._stream):
                self._moved = self._load()

    def _load(self) -> list[MicroBatch]:
        found = list(islice(self._batches, self._accumulation))
        return [micro._replace(batch=move(micro.batch, self._device)) for micro in found]
