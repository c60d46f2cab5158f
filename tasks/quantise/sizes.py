"""What parts of a model weigh: by arithmetic at several precisions, and as files where there are some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

from torch import nn

BITS = (32, 16, 8, 4, 2, 1.6)
REST, TOTAL = "rest", "total"


@dataclass(frozen=True, slots=True)
class SizeRow:
    """A part of a model."""

    part: str
    parameters: int
    bytes_at: Mapping[float, int]
    """Bytes by bits per parameter: of the parameters alone, without scales and headers."""
    measured: int | None
    """Bytes of its file; None where it has none."""


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Return the number of values of every parameter by name; of tied ones the first counts."""
    return {name: parameter.numel() for name, parameter in model.named_parameters()}


def size_rows(
    parameters: Mapping[str, int], parts: Sequence[str], files: Mapping[str, Path] | None = None
) -> list[SizeRow]:
    """Return a row for every part, one for the rest if there is any, and one for the total.

    Args:
        parameters: values of each parameter by name, as `parameter_counts` returns them.
        parts: names of modules; a parameter belongs to the most deeply nested one that holds it.
        files: the files of parts, `total` among them.

    Raises:
        ValueError: a part holds no parameter, or a file is of no part.
    """
    counts = dict.fromkeys([*parts, REST], 0)
    for name, count in parameters.items():
        counts[max((part for part in parts if name.startswith(f"{part}.")), key=len, default=REST)] += count
    empty = [part for part in parts if not counts[part]]
    if empty:
        raise ValueError(f"the model has no parameters in {empty[0]}; name modules that hold some")
    if not counts[REST]:
        del counts[REST]
    counts[TOTAL] = sum(parameters.values())
    unknown = sorted((files or {}).keys() - counts.keys())
    if unknown:
        raise ValueError(f"there is a file of {unknown[0]}, which is no part; parts are {', '.join(counts)}")
    return [_row(part, count, (files or {}).get(part)) for part, count in counts.items()]


def _row(part: str, count: int, file: Path | None) -> SizeRow:
    sizes = {bits: ceil(count * Fraction(str(bits)) / 8) for bits in BITS}
    return SizeRow(part, count, sizes, None if file is None else file.stat().st_size)
