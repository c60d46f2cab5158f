"""Words of weather texts: units, and the phrases that tell of what a number is the maximum, minimum, mean or change."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

Kind = Literal[
    "temperature", "sea temperature", "wind", "rain", "rain rate", "snow", "pressure",
    "wet area", "fog time", "sunlight", "percent", "latitude", "longitude",
]  # fmt: skip
"""What is measured. `rain` is water, also that of snow; `snow` is depth. Pieces of a whole: `wet area` (of the region),
`fog time`, `sunlight` (of that above the atmosphere), and any other `percent`."""

Statistic = Literal["maximum", "minimum", "mean", "change", "anomaly", "threshold"]
"""`change` is since an earlier time, `anomaly` from what is normal, `threshold` a bound ("above 40 °C", "1 mm or
more") and no value."""

Key = tuple[Kind, Statistic | None]

CANONICAL: dict[Kind, str] = {
    "temperature": "°C",
    "sea temperature": "°C",
    "wind": "m/s",
    "rain": "mm",
    "rain rate": "mm/h",
    "snow": "mm",
    "pressure": "hPa",
    "wet area": "%",
    "fog time": "%",
    "sunlight": "%",
    "percent": "%",
    "latitude": "°N",
    "longitude": "°E",
}
"""The unit that values of a kind are in."""

UNITS: dict[str, tuple[str, float]] = {
    "latitude": (r"(?:°\s?|degrees? )(?:[NS]\b|north\b|south\b)", 1),
    "longitude": (r"(?:°\s?|degrees? )(?:[EW]\b|east\b|west\b)", 1),
    "fahrenheit": (r"(?:[°º˚]\s?|degrees? )?(?:F\b|Fahrenheit\b)", 5 / 9),
    "celsius": (r"(?:[°º˚]\s?|degrees? )?(?:C\b|Celsius\b)|[°º˚](?!\s?[NSEWCF]\b)|degrees?\b", 1),
    "m/s": (r"m/s\b|m s\^?-1|met(?:re|er)s? (?:per|a) second\b", 1),
    "km/h": (r"km/h\b|kmh\b|kph\b|km h-1|(?:km|kilomet(?:re|er)s?) (?:per|an) hour\b", 1 / 3.6),
    "mph": (r"mph\b|miles (?:per|an) hour\b", 0.44704),
    "knots": (r"knots?\b|kts?\b", 1852 / 3600),
    "hPa": (r"hPa\b|mbar\b|mb\b|hectopascals?\b|millibars?\b", 1),
    "mm/h": (r"(?:mm|millimet(?:re|er)s?)(?:/h\b| (?:per|an|in an) hour\b)", 1),
    "mm": (r"mm\b|millimet(?:re|er)s?\b", 1),
    "cm": (r"cm\b|centimet(?:re|er)s?\b", 10),
    "inches": (r"inch(?:es)?\b", 25.4),
    "feet": (r"f(?:ee|oo)t\b|ft\b", 304.8),
    "%": (r"%|per ?cent\b", 1),
}
"""Unit -> (how it is written, factor to the canonical unit)."""

ANY_UNIT = "|".join(pattern for pattern, _ in UNITS.values())

_OTHER_LENGTHS = re.compile(
    r"\b(?:hail\w*|diameter|wide|waves?|tides?|surge|river|long|visibility|elevation|altitude|per year)\b"
)

_AFTER: tuple[tuple[Statistic, str], ...] = (
    ("anomaly", r"(?:\w+ )?(?:above|below|over|under)\b.{0,30}?\b(?:normal|average|mean|usual)"),
    ("anomaly", r"(?:warmer|hotter|milder|colder|cooler|higher|lower) than (?:normal|average|usual)"),
    ("change", r"(?:warmer|hotter|milder|colder|cooler|higher|lower)\b|since\b|in a day\b|compared with\b"),
    ("change", r"(?:rise|fall|drop|increase|decrease)\b"),
    ("threshold", r"or (?:more|above|higher|less|lower|below)\b"),
    ("minimum", r"at (?:its|their) lowest|at the (?:cold|low|cool)est\b"),
    ("maximum", r"at most\b|at the peak|at the \w+est\b|at (?:its|their) (?:\w+est|peak)\b"),
    ("mean", r"on average\b"),
)
"""What directly follows a number; the first that fits."""

_TO = r"(?: back)?(?: to| toward| towards| near)?\b"

_BEFORE = re.compile(
    r"""
    (?P<change>\b(?:\w+ing|rose|fell|dropped|increased|decreased|warmed|cooled)\ by\b
        |\ba\ (?:fall|rise|drop|increase|decrease)\ of\b)
    |(?P<minimum>\bminim\w+|\blows?\b(?![\s-]*pressure)|\blowest\b|\bdown\ to\b|\bas\ low\ as\b|\bcentral\ pressure\b
        |\b(?:nowhere|never)\ fell\ below\b
        |\b(?:fell|fall|falling|drop\w*|dip\w*|plung\w*|sank)\ to\b|\bdeepen\w*\ to\b)
    |(?P<maximum>\bmaxim\w+|\bmaxima\b|\bhighs?\b(?![\s-]*pressure)|\bhighest\b|\bno\ more\ than\b
        |\bat\ most\b|\bup\ to\b
        |\bas\ high\ as\b|\bnot\ exceed\w*|\bpeak\w*|\breach\w*|\brecord\w*|\bhit\b
        |\b(?:climb|soar)\w*TO|\b(?:rose|rise|rising)\ to\b)
    |(?P<threshold>\bexceed\w*|\bmore\ than\b|\bless\ than\b|\bat\ least\b|\btopp\w+|\bsurpass\w*|\bupwards\ of\b
        |\b(?:above|over|below|under|beyond|past)\s+(?:about\s+)?$)
    |(?P<mean>\bmean\b|\baverag\w*
        |(?<!high\ )(?<!low\ )(?<!maximum\ )(?<!minimum\ )\btemperatures\ (?:around|near|about|of)\s*$)
    """.replace("TO", _TO.replace(" ", r"\ ")),
    re.IGNORECASE | re.VERBOSE,
)
"""What comes before a number in its clause; the last that fits."""

_FALLING = re.compile(r"\b(?:cold\w*|cool\w*|fall\w*|fell|drop\w*|decreas\w*|below|under|lower\w*|declin\w*)\b", re.I)
_RISING = re.compile(r"\b(?:warm\w*|hott\w*|mild\w*|ris\w*|rose|increas\w*|above|over|higher)\b", re.I)


def unit_of(text: str) -> str:
    """Return the unit that is written so: `unit_of("mm per hour")` => "mm/h"."""
    return next(unit for unit, (pattern, _) in UNITS.items() if re.fullmatch(pattern, text, re.IGNORECASE))


def kind_of(unit: str, before: str, after: str, sentence: str) -> Kind | None:
    """Return what is measured; None for other lengths, such as hail or waves, and speeds of moving storms."""
    if unit in ("celsius", "fahrenheit"):
        return "sea temperature" if re.search(r"\b(?:sea|water)\b", before, re.I) else "temperature"
    if unit in ("m/s", "km/h", "mph", "knots"):
        return None if re.search(r"\b(?:mov|travel)\w+ .*$", before, re.I) else "wind"
    if unit == "%":
        return _share(before, after)
    if unit in ("mm", "cm", "inches", "feet"):
        return _depth(unit, f"{before} {after}", sentence)
    named: dict[str, Kind] = {"hPa": "pressure", "mm/h": "rain rate", "latitude": "latitude", "longitude": "longitude"}
    return named[unit]


def _share(before: str, after: str) -> Kind:
    if re.match(r"\s*of the sun", after):
        return "sunlight"
    if re.match(r"\s*of the area", after):
        return "wet area"
    return "fog time" if re.match(r"\s*of the time", after) and re.search(r"fog|mist", before, re.I) else "percent"


def _depth(unit: str, near: str, sentence: str) -> Kind | None:
    if _OTHER_LENGTHS.search(near):
        return None
    if unit != "mm" and re.search(r"snow|blizzard", sentence, re.I):
        return "snow"
    if unit == "mm" or (unit != "feet" and re.search(r"rain|precipitation|shower|storm|wet", sentence, re.I)):
        return "rain"
    return None


def statistic_after(after: str) -> Statistic | None:
    """Return what the words right after a number make of it."""
    words = after.lstrip()
    return next((statistic for statistic, pattern in _AFTER if re.match(pattern, words, re.I)), None)


def statistic_before(kind: Kind, before: str) -> Statistic | None:
    """Return what the words before a number, in its clause, make of it."""
    found: Statistic | None = None
    for match in _BEFORE.finditer(before):
        system = re.match(r"highs?\b|lows?\b", match[0], re.I)  # of pressure, or of temperature: not of rain
        if not (system and kind not in ("temperature", "pressure")):
            found = match.lastgroup  # type: ignore[assignment]  # groups are named after statistics
    return found


def _pressure_statistic(before: str) -> Statistic | None:
    if re.search(r"\b(?:lows?|cyclone|storm|depression|hurricane|typhoon|trough)\b", before, re.I):
        return "minimum"
    return "maximum" if re.search(r"\b(?:highs?|anticyclone|ridge)\b", before, re.I) else None


_UNSAID: dict[Kind, Callable[[str], Statistic | None]] = {
    "wind": lambda _: "maximum",
    "rain": lambda _: "maximum",
    "rain rate": lambda _: "maximum",
    "snow": lambda _: "maximum",
    "sea temperature": lambda _: "mean",
    "wet area": lambda _: "mean",
    "fog time": lambda _: "mean",
    "sunlight": lambda _: "mean",
    "pressure": _pressure_statistic,
}


def statistic_by_kind(kind: Kind, before: str) -> Statistic | None:
    """Return what a number is taken for when no word says so: amounts and winds are those of the worst place."""
    return _UNSAID[kind](before) if kind in _UNSAID else None


def direction(before: str, after: str) -> int:
    """Return -1 where the words about a change or anomaly tell of a fall, else 1."""
    for words in (after.split(",")[0], before):
        falling, rising = _FALLING.search(words), _RISING.search(words)
        if falling or rising:
            return -1 if falling and not (rising and rising.start() < falling.start()) else 1
    return 1
