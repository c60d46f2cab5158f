"""Quantities in texts about weather: what they measure, of what they are the extreme or mean, in canonical units."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.captions.quantities import (
    ANY_UNIT,
    CANONICAL,
    UNITS,
    Key,
    Kind,
    Statistic,
    direction,
    kind_of,
    statistic_after,
    statistic_before,
    statistic_by_kind,
    unit_of,
)

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"

_STATED = re.compile(
    rf"(?P<first>(?<![\w.-])(?<!\d\s)(?:-|minus )?{_NUMBER})(?![\d.]*\d)(?:[\s-]?(?P<unit>{ANY_UNIT}))?"
    rf"(?:(?P<joint>\s?-\s?|\sto\s|\sand\s)(?P<second>(?:-|minus )?{_NUMBER})[\s-]?(?P<last>{ANY_UNIT}))?",
    re.IGNORECASE,
)

_PLAIN = str.maketrans({"‐": "-", "‑": "-", "–": "-", "—": "-", "−": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " "})
"""Character for character, so that places in the text stay the same."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number that a text states about the weather."""

    kind: Kind
    statistic: Statistic | None
    """None where the text does not tell."""
    value: float
    """In `unit`; south and west, falls and what is below normal are negative."""
    unit: str
    """The canonical unit of the kind: °C, m/s, mm, mm/h, hPa, %, °N, °E."""
    start: int
    end: int
    """`text[start:end]` is the number with its unit."""

    @property
    def key(self) -> Key:
        """What the value is to be compared with."""
        return self.kind, self.statistic


@dataclass(frozen=True, slots=True)
class _Statement:
    """A number or a range as written, before its surroundings are looked at."""

    start: int
    end: int
    values: tuple[tuple[str, str], ...]
    """(number, unit) as written; two for a range."""


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """The words around a statement, up to the numbers and clauses next to it."""

    before: str
    after: str
    sentence: str


def quantities(text: str) -> list[Quantity]:
    """Return every quantity that a text states, in order; numbers without a known unit or meaning are none."""
    plain = text.translate(_PLAIN)
    statements = list(_statements(plain))
    found: list[Quantity] = []
    for place, statement in enumerate(statements):
        begin = statements[place - 1].end if place else 0
        end = statements[place + 1].start if place + 1 < len(statements) else len(plain)
        around = _Surroundings(
            re.split(r";|[.!?]\s", plain[begin : statement.start])[-1],
            re.split(r"[;,.()]|\band\b", plain[statement.end : end])[0],
            _sentence(plain, statement),
        )
        found += _quantities(statement, around, found[-1] if found else None)
    return found


def _statements(plain: str) -> Iterator[_Statement]:
    for match in _STATED.finditer(plain):
        unit, last, joint = match["unit"], match["last"], (match["joint"] or "").strip()
        ranged = joint != "and" or re.search(r"\bbetween\s+$", plain[: match.start()], re.IGNORECASE)
        if last and ranged and (not unit or unit_of(unit) == unit_of(last)):
            values = (match["first"], unit or last), (match["second"], last)
            yield _Statement(match.start(), match.end(), values)
            continue
        if unit:
            yield _Statement(match.start(), match.end("unit"), ((match["first"], unit),))
        if last:
            yield _Statement(match.start("second"), match.end(), ((match["second"], last),))


def _sentence(plain: str, statement: _Statement) -> str:
    ends = [match.end() for match in re.finditer(r"[.;!?]\s", plain)]
    begin = max((end for end in ends if end <= statement.start), default=0)
    return plain[begin : min((end for end in ends if end >= statement.end), default=len(plain))]


def _quantities(statement: _Statement, around: _Surroundings, previous: Quantity | None) -> Iterator[Quantity]:
    unit = unit_of(statement.values[-1][1])
    kind = kind_of(unit, around.before, around.after, around.sentence)
    if kind is None:
        return
    statistic = _statistic(kind, around, previous)
    values = [_canonical(digits, written, statistic) for digits, written in statement.values]
    if statistic in ("change", "anomaly"):
        sign = direction(around.before, around.after)
        values = [sign * value if value > 0 else value for value in values]
    ends: list[Statistic | None] = [statistic] * len(values)
    if len(values) == 2 and kind in ("temperature", "pressure") and statistic in (None, "mean"):
        values.sort()
        ends = ["minimum", "maximum"]
    for value, end in zip(values, ends, strict=True):
        yield Quantity(kind, end, value, CANONICAL[kind], statement.start, statement.end)


def _statistic(kind: Kind, around: _Surroundings, previous: Quantity | None) -> Statistic | None:
    if kind in ("latitude", "longitude"):
        return None
    told = statistic_after(around.after) or statistic_before(kind, around.before)
    again = re.fullmatch(r"[\s(~≈,]*(?:and|or|to|about)?[\s(~≈]*", around.before)
    if told is None and again and previous and previous.kind == kind:  # 89 °F (31.7 °C); 34 °C and 38 °C
        return previous.statistic
    return told or statistic_by_kind(kind, around.before)


def _canonical(digits: str, written: str, statistic: Statistic | None) -> float:
    unit = unit_of(written)
    number = re.sub(r"^minus ", "-", digits, flags=re.IGNORECASE).replace(",", "")
    value = float(number)
    if unit == "fahrenheit" and statistic not in ("change", "anomaly"):
        value -= 32
    if unit in ("latitude", "longitude") and re.search(r"[SW]\b|south|west", written, re.IGNORECASE):
        value = -value
    return value * UNITS[unit][1]
