"""The eight ways to turn and flip a map, for pixels, tokens and vectors alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Turn:
    """First the map's rows and columns change places, then rows and columns may run backwards."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @classmethod
    def draw(cls, random: np.random.Generator) -> Self:
        """Draw one of the eight."""
        return cls(*(bool(bit) for bit in random.integers(0, 2, 3)))

    def map(self, values: NDArray[Any]) -> NDArray[Any]:
        """Turn the last two axes, as a view."""
        if self.transpose:
            values = values.swapaxes(-1, -2)
        return values[..., :: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def vector(self, east: NDArray[Any], north: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Turn vectors given by their parts along east (to the right on the map) and north (upwards)."""
        if self.transpose:
            east, north = -north, -east
        return -east if self.flip_columns else east, -north if self.flip_rows else north
