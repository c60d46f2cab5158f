"""The next token, by what a model says of all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DRAWN_FROM = 0.9
"""How likely those tokens are together, with a temperature, that one is drawn from."""


def choose(logits: NDArray[np.float32], temperature: float, random: np.random.Generator) -> int:
    """Return the likeliest token; where the temperature is above 0, one that is drawn from the likeliest ones, which
    together are `DRAWN_FROM` likely.
    """
    if temperature <= 0:
        return int(logits.argmax())
    order = np.argsort(-logits, kind="stable")
    likely = np.exp((logits[order] - logits[order[0]]).astype(np.float64) / temperature)
    before = np.cumsum(likely) - likely
    likely = likely[before < DRAWN_FROM * likely.sum()]
    return int(random.choice(order[: len(likely)], p=likely / likely.sum()))
