"""How questions about a window are put, in several ways each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Forms = tuple[str, ...]


@dataclass(frozen=True)
class Words:
    """Forms of the questions about one quantity; what has none is not asked."""

    most: Forms
    """In which quarter there is most of it."""
    least: Forms
    """In which there is least."""
    which: Forms
    """Which of {a} and {b} has more."""
    whether: Forms
    """Whether {a} has more than {b}."""
    usual: Forms
    """Whether the mean lies above that of the training period."""
    trend: Forms
    """Whether it rises or falls at the centre, from the first step to the last."""
    count: Forms
    """How many quarters have a mean above {level}."""
    numbers: Mapping[str, Forms] = field(default_factory=dict)
    """The highest and the lowest value, by fact, to the nearest {nearest}."""


WORDS = {
    "temperature": Words(
        most=("Where is it warmest?", "Where in the window is it warmest?", "Where is the temperature highest?"),
        least=("Where is it coldest?", "Where in the window is it coldest?", "Where is the temperature lowest?"),
        which=("Is it warmer in the {a} or in the {b}?", "Which is warmer, the {a} or the {b}?"),
        whether=("Is it warmer in the {a} than in the {b}?", "Is the {a} warmer than the {b}?"),
        usual=("Is the temperature above the period's mean?", "Is it warmer than the period's mean?"),
        trend=(
            "Does the temperature at the centre rise or fall?",
            "At the centre, does the temperature fall or rise during the window?",
        ),
        count=(
            "How many of the four quarters are warmer than {level} degrees Celsius?",
            "How many quarters have a mean of more than {level} degrees Celsius?",
        ),
        numbers={
            "highest": ("What is the highest temperature, in degrees Celsius, to the nearest {nearest}?",),
            "lowest": ("What is the lowest temperature, in degrees Celsius, to the nearest {nearest}?",),
        },
    ),
    "wind": Words(
        most=("Where is the wind strongest?", "Where in the window is it windiest?"),
        least=("Where is the wind weakest?", "Where in the window is it calmest?"),
        which=("Is it windier in the {a} or in the {b}?", "Which is windier, the {a} or the {b}?"),
        whether=("Is it windier in the {a} than in the {b}?", "Is the {a} windier than the {b}?"),
        usual=("Is the wind above the period's mean?", "Is it windier than the period's mean?"),
        trend=("Does the wind at the centre rise or fall?", "At the centre, does the wind fall or rise?"),
        count=(
            "How many of the four quarters have a mean wind above {level} metres per second?",
            "How many quarters are windier than {level} metres per second in the mean?",
        ),
        numbers={
            "highest": ("What is the strongest wind, in metres per second, to the nearest {nearest}?",),
        },
    ),
    "pressure": Words(
        most=("Where is the pressure highest?", "Where in the window is the pressure highest?"),
        least=("Where is the pressure lowest?", "Where in the window is the pressure lowest?"),
        which=(
            "Is the pressure higher in the {a} or in the {b}?",
            "Which has the higher pressure, the {a} or the {b}?",
        ),
        whether=("Is the pressure higher in the {a} than in the {b}?", "Has the {a} a higher pressure than the {b}?"),
        usual=("Is the pressure above the period's mean?", "Is the pressure higher than the period's mean?"),
        trend=(
            "Does the pressure at the centre rise or fall?",
            "At the centre, does the pressure fall or rise during the window?",
        ),
        count=(
            "How many of the four quarters have a mean pressure above {level} hectopascals?",
            "How many quarters have more than {level} hectopascals in the mean?",
        ),
        numbers={
            "highest": ("What is the highest pressure, in hectopascals, to the nearest {nearest}?",),
            "lowest": ("What is the lowest pressure, in hectopascals, to the nearest {nearest}?",),
        },
    ),
    "rain": Words(
        most=("Where does it rain most?", "Where in the window is it wettest?"),
        least=("Where does it rain least?", "Where in the window is it driest?"),
        which=("Is it wetter in the {a} or in the {b}?", "Which is wetter, the {a} or the {b}?"),
        whether=("Does it rain more in the {a} than in the {b}?", "Is the {a} wetter than the {b}?"),
        usual=("Is there more rain than in the period's mean?", "Is it wetter than the period's mean?"),
        trend=(),
        count=(),
    ),
}
