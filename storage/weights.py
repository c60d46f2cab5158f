"""What a safetensors file holds, read from its header alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

IN_KEY = False

LENGTH = 8  # bytes of the header's own length
LONGEST_HEADER = 100_000_000  # bytes, as the format allows


class StoredTensor(NamedTuple):
    """A tensor as it lies in a file."""

    dtype: str
    """In the words of safetensors, e.g. `BF16`."""
    shape: tuple[int, ...]
    size: int
    """Bytes."""

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def read_tensors(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file by name; `ValueError` where it is none, or is cut off."""
    whole = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH), "little")
        text = file.read(length) if length <= min(LONGEST_HEADER, whole) else b""
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        ends = {name: _span(entry["data_offsets"]) for name, entry in header.items()}
        tensors = {
            name: StoredTensor(str(entry["dtype"]), _whole(entry["shape"]), ends[name][1] - ends[name][0])
            for name, entry in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise ValueError(f"{path} is no safetensors file; get or make it again") from None
    expected = LENGTH + length + max((end for _, end in ends.values()), default=0)
    if whole != expected:
        raise ValueError(f"{path} has {whole:,} bytes where its header says {expected:,}; get or make it again")
    return tensors


def _span(numbers: object) -> tuple[int, int]:
    start, end = _whole(numbers)
    return start, end


def _whole(numbers: object) -> tuple[int, ...]:
    """Return a list of whole numbers that are no less than 0; `TypeError` for everything else."""
    if not isinstance(numbers, list) or any(type(number) is not int or number < 0 for number in numbers):
        raise TypeError("no whole numbers")
    return tuple(numbers)
