"""Units as CF and ERA5 write them: whether two texts mean the same one."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

_EXPONENT = re.compile(r"(?<=[A-Za-z])(?=[-+]?\d)")  # m s-1, W m2
_POWER = re.compile(r"\s*\(?\s*[-+]?\d{1,2}(\.\d+)?(?![\d.])")
_LONGEST = 200
_WORD = re.compile(r"\b[A-Z][a-z]{3,}")  # Pascal, Celsius


def same_unit(first: str, second: str) -> bool:
    """Say whether two texts mean the same unit: `m s-1` and `m s**-1` do, `mm` and `m`, or `degC` and `K`, do not.

    Texts that are no units, such as `(0 - 1)`, are the same where they are equal.
    """
    if first == second:
        return True
    meanings = _meaning(first), _meaning(second)
    return meanings[0] is not None and meanings[0] == meanings[1]


@cache
def _meaning(text: str) -> tuple[str, float, float] | None:
    """Return the base units of a unit, and what 0 and 1 of it are in those; None where it is no unit."""
    if not text.strip():
        return None
    registry = _registry()
    written = _EXPONENT.sub("**", text.strip().replace("^", "**"))
    written = re.sub(r"(?<=[A-Za-z0-9])\.(?=[A-Za-z])", " ", written)
    written = _WORD.sub(lambda word: word[0].lower(), written)
    if not _is_small(written):
        return None
    try:
        unit = registry.parse_units(written)
        zero, one = (registry.Quantity(value, unit).to_root_units() for value in (0.0, 1.0))
    except Exception:  # pint raises what its parser meets: names, syntax, types
        return None
    return str(one.units), float(f"{zero.magnitude:.9g}"), float(f"{one.magnitude:.9g}")


def _is_small(written: str) -> bool:
    """Say whether a unit can be worked out in no time: `m**9**9**9` has more digits than there is memory for."""
    _, *powers = written.split("**")
    plain = all(map(_POWER.match, powers)) and all(re.search("[A-Za-z]", power) for power in powers[:-1])
    return plain and len(written) <= _LONGEST


@cache
def _registry() -> Any:
    import pint  # texts that are equal do without its second of start

    return pint.UnitRegistry(autoconvert_offset_to_baseunit=True)
