"""How many bytes weights take at so many bits each: arithmetic, without scales or padding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

BITS = (32, 16, 8, 4, 2, 1.6)
"""Floating point, half, int8, 4 bits, two bits for three values, and five of three values in a byte."""
DOMINANT = 0.5
"""Share of all elements from which a part is told by its own parts."""


def bytes_at(parameters: int, bits: float) -> int:
    """Return the bytes of so many parameters; `bytes_at(10, 1.6) => 2`."""
    return math.ceil(parameters * bits / 8)


def by_part(elements: Mapping[str, int], depth: int = 3) -> dict[str, int]:
    """Return the elements of each part of a model, from those of its tensors by name.

    A part is what names begin with up to a dot. One that holds more than half of all is split further, but for stacks
    of numbered layers, and at most `depth` deep.

    >>> by_part({"model.embed.weight": 6, "model.layers.0.w": 5, "model.layers.1.w": 5, "lm_head.weight": 4})
    {'lm_head': 4, 'model.embed': 6, 'model.layers': 10}
    """
    whole = sum(elements.values())
    parts: dict[str, int] = {}

    def split(names: Sequence[str], level: int) -> None:
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(".".join(name.split(".")[:level]), []).append(name)
        for part, members in groups.items():
            count = sum(elements[name] for name in members)
            inner = [name.split(".")[level:] for name in members]
            splits = all(len(rest) > 1 and not rest[0].isdigit() for rest in inner)
            if count > DOMINANT * whole and splits and level < depth:
                split(members, level + 1)
            else:
                parts[part] = count

    split(sorted(elements), 1)
    return parts
