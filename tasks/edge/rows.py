"""Rows of the embedding table inside a GGUF file, read without the rest of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
TRITS = 3 ** np.arange(5, dtype=np.uint8)


class EmbeddingRows:
    """The embeddings of token ids."""

    def __init__(self, path: Path, kind: str, offset: int, rows: int, width: int) -> None:
        """Open a table.

        Args:
            path: the GGUF file.
            kind: what the table is stored as: F32, F16, Q8_0, Q4_0, TQ1_0 or TQ2_0.
            offset: where in the file it begins, in bytes.
            rows: tokens.
            width: channels.
        """
        self._table = np.memmap(path, np.uint8, "r", offset, (rows, row_bytes(kind, width)))
        self._kind = kind

    def __call__(self, ids: Sequence[int]) -> Floats:
        """Return embeddings (N, width) of tokens."""
        return dequantised(np.array(self._table[list(ids)]), self._kind)


def row_bytes(kind: str, width: int) -> int:
    """Return the bytes of a row."""
    block, size = {"F32": (1, 4), "F16": (1, 2), "Q8_0": (32, 34), "Q4_0": (32, 18), "TQ1_0": (256, 54),
                   "TQ2_0": (256, 66)}[kind]  # fmt: skip
    return width // block * size


def dequantised(rows: Bytes, kind: str) -> Floats:
    """Return the floats (N, width) of rows (N, bytes)."""
    count = len(rows)
    if kind in ("F32", "F16"):
        return rows.view(np.float32 if kind == "F32" else np.float16).astype(np.float32)
    blocks = rows.reshape(count, -1, row_bytes(kind, 256 if kind.startswith("TQ") else 32))
    values = {"Q8_0": _bytes, "Q4_0": _nibbles, "TQ1_0": _trits, "TQ2_0": _pairs}[kind](blocks)
    return values.reshape(count, -1)


def _bytes(blocks: Bytes) -> Floats:
    return _scale(blocks[..., :2]) * blocks[..., 2:].view(np.int8)


def _nibbles(blocks: Bytes) -> Floats:
    codes = blocks[..., 2:]
    return _scale(blocks[..., :2]) * (np.concatenate([codes & 15, codes >> 4], -1).astype(np.int8) - 8)


def _trits(blocks: Bytes) -> Floats:
    """Return what 48 bytes of five digits each stand for, and 4 of four; a byte's first digit is its leading one."""
    parts = [(blocks[..., :32], 5), (blocks[..., 32:48], 5), (blocks[..., 48:52], 4)]
    codes = np.concatenate([_digits(part, count) for part, count in parts], -1)
    return _scale(blocks[..., 52:]) * codes


def _digits(part: Bytes, count: int) -> NDArray[np.int8]:
    shifted = part[..., None, :] * TRITS[:count, None]  # wraps around, as it is meant to
    digits = (shifted.astype(np.uint16) * 3) >> 8
    return digits.reshape(*part.shape[:-1], -1).astype(np.int8) - 1


def _pairs(blocks: Bytes) -> Floats:
    codes = blocks[..., :64].reshape(*blocks.shape[:-1], 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None]
    return _scale(blocks[..., 64:]) * ((codes & 3).reshape(*blocks.shape[:-1], 256).astype(np.int8) - 1)


def _scale(pair: Bytes) -> Floats:
    return np.ascontiguousarray(pair).view(np.float16).astype(np.float32)
