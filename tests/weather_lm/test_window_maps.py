"""Scales of maps."""

from __future__ import annotations

import numpy as np

from tasks.window_maps import coloured, limits


def test_a_map_without_rain_has_the_colour_of_least_rain():
    dry, some = np.zeros((2, 2)), np.array([[0.0, 0.002], [np.nan, 0.001]])
    assert limits(dry) == (0, 1e-3)
    assert limits(some) == (0, 0.002)
    assert limits(np.full((2, 2), np.nan)) == (0, 1)
    assert (coloured(dry) == coloured(some)[0, 0]).all()
    assert (coloured(some)[1, 0] == 0.85).all(), "grey where there is nothing"
