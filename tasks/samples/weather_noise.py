"""Smooth random fields on the sphere that exist at any place and time, without a grid and without a state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Waves:
    """A sum of travelling waves `cos(m x longitude - w t + a) cos(n x latitude + b)`, one entry per wave."""

    zonal: Floats
    """Whole waves around a latitude circle (m)."""
    meridional: Floats
    """Waves along a meridian circle (n)."""
    frequency: Floats
    """Radians per hour; positive moves eastwards."""
    phase: Floats
    """Phases, shape (2, waves)."""

    def field(self, latitude: Floats, longitude: Floats, hours: Floats) -> Floats:
        """Evaluate as (hour, latitude, longitude): mean 0, variance 1, fading towards the poles.

        Degrees in, hours since any fixed moment; the grid is the product of `latitude` and `longitude`.
        """
        rows = np.radians(latitude)[:, None] * self.meridional + self.phase[1]
        north_south = np.cos(rows) * np.minimum(1.0, 2.5 * np.cos(np.radians(latitude)))[:, None]
        turn = self.phase[0] - self.frequency * np.asarray(hours, dtype=np.float64)[:, None]
        east_west = np.cos(self.zonal[:, None] * np.radians(longitude) + turn[:, :, None])
        scale = np.float32(2 / np.sqrt(len(self.zonal)))
        # einsum without BLAS: the same bits whatever the number of threads
        return scale * np.einsum(
            "rk,tkc->trc", north_south.astype(np.float32), east_west.astype(np.float32), optimize=False
        )

    def at(self, latitude: Floats, longitude: Floats) -> Floats:
        """Evaluate at scattered points at hour 0; the shape of `latitude` and `longitude`."""
        total = np.zeros(np.broadcast(latitude, longitude).shape)
        for m, n, a, b in zip(self.zonal, self.meridional, *self.phase, strict=True):
            total += np.cos(m * np.radians(longitude) + a) * np.cos(n * np.radians(latitude) + b)
        return total * 2 / np.sqrt(len(self.zonal))


def random_waves(
    key: tuple[int, ...],
    *,
    count: int,
    zonal: tuple[int, int],
    drift: float = 0.0,
    period_hours: float = np.inf,
) -> Waves:
    """Draw `count` waves with `zonal` (least, most) waves around the globe; same key, same waves.

    `drift` is the eastward speed in degrees per hour; beside it every wave moves on its own with a period
    of at least `period_hours`.
    """
    draws = np.random.default_rng(key).random((5, count))
    m = np.floor(zonal[0] + draws[0] * (zonal[1] - zonal[0] + 1))
    n = zonal[0] + draws[1] * (zonal[1] - zonal[0])
    own = (2 * draws[2] - 1) * 2 * np.pi / period_hours
    return Waves(m, n, m * np.radians(drift) + own, draws[3:5] * 2 * np.pi)
