"""Which kinds of weather a text tells of."""

from __future__ import annotations

import re

_EVENTS: dict[str, str] = {
    "heat": r"heat\b|heat[ -]?waves?|hot\b|hotter|hottest|scorching|sweltering",
    "warmer": r"warm(?:er|ing)\b|above[ -](?:normal|average) temperatures?|milder",
    "colder": r"cold(?:er)\b|cool(?:er|ing)\b|below[ -](?:normal|average) temperatures?",
    "cold": (
        r"cold (?:wave|snap|air|spell|outbreak|blast)s?|arctic (?:air|blast|outbreak)|bitter(?:ly)? cold|"
        r"freez(?:e|ing)\b"
    ),
    "frost": r"frosts?\b|frosty|freez(?:e|es)\b|sub-?zero",
    "rain": r"rain\w*|drizzl\w*|showers?|showery|precipitation|downpours?|monsoon\w*|wet\b|deluge",
    "heavy rain": (
        r"(?:heavy|heavier|torrential|extreme|extremely heavy|intense|exceptional|prolonged heavy) "
        r"(?:rain\w*|showers?|precipitation|downpours?|monsoon rains?)|downpours?|deluge|cloudbursts?"
    ),
    "snow": r"snow\w*|blizzards?|sleet",
    "hail": r"hail\w*",
    "thunderstorm": r"thunder\w*|lightning|derechos?|squall\w*",
    "tornado": r"tornado\w*|landspouts?|waterspouts?|twisters?",
    "strong wind": (
        r"(?:strong|fresh|high|damaging|gusty|severe|powerful|near-gale|storm-force|hurricane-force) (?:\w+ )?"
        r"(?:winds?|gusts?)|gusts?|gusty|windy|gales?|near-gale"
    ),
    "gale": r"gales?\b|gale-force|(?:storm|hurricane)-force winds|windstorms?",
    "storm": r"storms?\b|stormy|windstorms?|snowstorms?|derechos?",
    "tropical cyclone": r"tropical (?:cyclone|storm|system|depression)s?|hurricanes?|typhoons?|cyclones?",
    "low": (
        r"low[ -]pressure|(?:a|deep|tropical) low\b|lows? named|depressions?|pressure fell|falling pressure|troughs?"
    ),
    "high": (
        r"high[ -]pressure|(?:a|strong) high\b|anti-?cyclones?|heat dome|pressure rose|rising pressure|"
        r"pressure as high"
    ),
    "fog": r"fog\w*|mist\w*|haz[ey]\w*",
    "dry": (
        r"dry\b|dryness|drier|arid|no (?:significant )?(?:rain|rainfall|precipitation)\b|"
        r"below[ -]average (?:rain\w*|precipitation)|rain(?:fall)? deficits?"
    ),
    "drought": r"droughts?",
    "flood": r"flood\w*|inundat\w*",
    "landslide": r"landslides?|mudslides?",
    "sunny": r"sun\b|sunny|sunshine|clear skies|fine (?:weather|and)|mostly clear",
    "cloudy": r"cloud(?:y|s|iness)?\b|overcast",
    "overcast": r"overcast",
    "calm": r"calm\b|light winds|hardly any wind",
    "fire": r"wild-?fires?|bush-?fires?|forest fires?",
}

_PATTERNS = {name: re.compile(rf"\b(?:{pattern})", re.IGNORECASE) for name, pattern in _EVENTS.items()}

_DENIED = re.compile(
    r"\b(?:no|without|hardly any|lack of|little) (?:significant )?(?:rain\w*|snow\w*|precipitation|wind|fog|sun\w*)"
    r"|\bbelow[ -](?:average|normal) (?:rain\w*|precipitation)|\brain(?:fall)? deficits?"
    r"|\b(?:rainfall|precipitation) (?:was|were|remained|stayed)(?: well| far)? below"
    r"|\bsun['’]s radiation",
    re.IGNORECASE,
)
"""Words for what did not happen, or that are no event: only `dry` and `calm` are read from them."""

_FROM_DENIALS = ("dry", "calm")

EVENTS = tuple(_EVENTS)
"""All classes, in a fixed order."""


def events(text: str) -> set[str]:
    """Return the classes of events that a text tells of; several may hold ("gale" is also "strong wind")."""
    plain = re.sub(r"[‐‑–]", "-", text)
    affirmed = _DENIED.sub(" ", plain)
    return {name for name, pattern in _PATTERNS.items() if pattern.search(plain if name in _FROM_DENIALS else affirmed)}
