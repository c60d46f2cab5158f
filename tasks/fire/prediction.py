"""A predicted frame, and the place on Earth that it is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from tasks.fire.scores import Mask

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.fire.dataset import FireDataset

ELEVATION = "elevation"


@dataclass(frozen=True)
class Place:
    """Where a crop lies on Earth, and its terrain."""

    crs: str
    """Coordinate system as WKT; empty when the landscape has none."""
    transform: tuple[float, float, float, float, float, float]
    """Affine transform (a, b, c, d, e, f) of the landscape: x = a column + b row + c, y = d column + e row + f."""
    row: int
    """First row of the crop in the landscape."""
    column: int
    """First column."""
    height: int
    width: int
    cell_metres: float
    elevation: NDArray[np.float32] | None = None
    """(height, width) metres, NaN where there is none; for the picture."""

    def crop(self, padded: Tensor) -> NDArray[Any]:
        """Return a padded picture as an array without its padding."""
        return padded[: self.height, : self.width].cpu().numpy()

    @classmethod
    def of(cls, samples: FireDataset, index: int) -> Self:
        """Return the place of a sample's whole region."""
        cache = samples.cache
        top, bottom, left, right = samples.place(index)
        elevation = None
        if ELEVATION in (names := [name.lower() for name in cache.continuous]):
            band, box = names.index(ELEVATION), np.s_[top:bottom, left:right]
            valid = cache.array("landscape/valid")[band][box]
            elevation = np.where(valid, cache.array("landscape/values")[band][box], np.float32("nan"))
        a, b, c, d, e, f = cache.transform
        return cls(
            cache.crs, (a, b, c, d, e, f), top, left, bottom - top, right - left, cache.cell_metres, elevation
        )  # fmt: skip


@dataclass(frozen=True)
class Prediction:
    """One predicted frame; arrays are (height, width) of the crop."""

    fire: str
    start: int
    """Last frame that was known."""
    frame: int
    """Frame that is predicted."""
    wind_known: bool
    """Whether the wind of the last step was measured; else the last measured wind is taken to go on."""
    probability: NDArray[np.float32]
    burnt: Mask
    before: Mask
    """Burnt in the last frame that was known."""
    domain: Mask
    truth: Mask | None = None
    """None beyond the record."""

    @property
    def run(self) -> str:
        """What the names of all files with the same fire and start begin with."""
        return f"{self.fire}_from_{self.start:03d}"

    @property
    def name(self) -> str:
        """Name of its files, without a suffix."""
        return f"{self.run}_to_{self.frame:03d}"
