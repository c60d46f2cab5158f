"""Colours of the wildfire pictures: one meaning, one colour, everywhere."""

from __future__ import annotations

from typing import Final

OUTSIDE: Final = "#c3c9cf"
"""Pixels outside the domain: no fuel value, or padding."""
UNBURNT: Final = "#f4f1e8"
"""Pixels of the domain that do not burn."""
BURNT: Final = "#4b4540"
"""Pixels that have burnt in the last frame of the history."""
GROWTH: Final = "#e4572e"
"""Pixels that burn for the first time in the next frame."""
HIT: Final = "#2a9d5c"
"""Growth that was predicted."""
MISS: Final = "#2f6fbf"
"""Growth that was not predicted."""
FALSE_ALARM: Final = "#f2b134"
"""Predicted growth that did not happen."""
PREDICTED: Final = "#111111"
"""Outline of a predicted state."""
TRUE: Final = "#00a0c6"
"""Outline of the true state."""
PROBABILITY: Final = "YlOrRd"
"""Colour map of a burn probability, 0 to 1."""
AGE: Final = "inferno_r"
"""Colour map of the frames since a pixel burnt first."""
ELEVATION: Final = "terrain"
"""Colour map of terrain height."""
INVALID: Final = "#8d3fa8"
"""Pixels or tokens without a valid value in a band."""

COPY_LAST: Final = "#8a8f94"
DILATIONS: Final = ("#3f4a55", "#a07c55")
"""Isotropic and wind-aware dilation."""
PREDICTORS: Final = ("#d1495b", "#2f6690", "#3a9d8f", "#c98b2b", "#7a5ba8", "#5b8c3a")
"""Learned models, in the order in which they are listed; EmberFormer comes first."""
PARTS: Final = {"train": "#2e7d4f", "validation": "#8a5fbf", "test": "#444444"}
"""Training, validation and test."""


def predictor_colours(names: list[str]) -> dict[str, str]:
    """Return a colour per predictor: dull ones for what only copies or dilates, strong ones for what learns."""
    dilations = [name for name in names if "dilation" in name]
    learned = [name for name in names if name != "CopyLast" and name not in dilations]
    colours = {name: DILATIONS[i % len(DILATIONS)] for i, name in enumerate(dilations)}
    colours |= {name: PREDICTORS[i % len(PREDICTORS)] for i, name in enumerate(learned)}
    return colours | {"CopyLast": COPY_LAST}
