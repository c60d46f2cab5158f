"""Packed models on disk: one safetensors file whose header says how its bytes are to be read, and their SHA-256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from configs.quantise import VERSION, Layout
from storage.checkpoints import put_weights, read_weights, save_weights, untied
from storage.hashing import canonical_json

REMARK = "packed_weights"
AGAIN = "quantise the model again"


@dataclass(frozen=True, slots=True)
class PackedHeader:
    """What a file of packed weights says of itself."""

    layout: Layout
    """How its ternary weights lie in bytes."""
    version: int
    """Version of the packed form."""
    sha256: str
    """Of names, types, shapes and bytes of its tensors."""


def save_packed(path: Path, tensors: Mapping[str, Tensor], layout: Layout) -> None:
    """Write the state of a packed model. Equal tensors, equal bytes."""
    kept = untied(tensors)
    header = PackedHeader(layout, VERSION, tensors_sha256(kept))
    save_weights(path, kept, (REMARK, canonical_json(asdict(header))))


def load_packed(path: Path, model: nn.Module, layout: Layout) -> None:
    """Read a file of packed weights into a packed model of this layout; what has no memory yet gets the file's.

    Raises:
        ValueError: the file holds no packed weights, those of another version or layout, not what was written, or
            those of another model.
    """
    header = packed_header(path)
    if header.layout != layout:
        raise ValueError(f"{path} has the layout {header.layout}, and the model {layout}; {AGAIN}, or name its layout")
    tensors = read_weights(path)
    if tensors_sha256(tensors) != header.sha256:
        raise ValueError(f"the weights in {path} are not those that were written; copy the file again, or {AGAIN}")
    put_weights(path, tensors, model)


def packed_header(path: Path) -> PackedHeader:
    """Return what a file says of itself; `ValueError` where it holds no packed weights, or those of another version."""
    try:
        with safe_open(path, "pt") as file:
            remarks = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as safetensors ({error})") from None
    try:
        found = json.loads(remarks[REMARK])
        version = found["version"]
        header = PackedHeader(**found) if version == VERSION else None
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ValueError(f"{path} does not say how its weights are packed; {AGAIN}") from None
    if header is None:
        raise ValueError(f"{path} is packed in version {version}, and version {VERSION} can be read; {AGAIN}")
    return header


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) of names, types, shapes and bytes of dense tensors on the CPU."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
