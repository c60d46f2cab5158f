"""Scales of maps."""

from __future__ import annotations

import numpy as np

from storage.window_dataset import WindowDataset
from tasks.window_maps import coloured, limits, moment_of
from tests.weather_lm.tiny import folders


def test_a_map_without_rain_has_the_colour_of_least_rain():
    dry, some = np.zeros((2, 2)), np.array([[0.0, 0.002], [np.nan, 0.001]])
    assert limits(dry) == (0, 1e-3)
    assert limits(some) == (0, 0.002)
    assert limits(np.full((2, 2), np.nan)) == (0, 1)
    assert (coloured(dry) == coloured(some)[0, 0]).all()
    assert (coloured(some)[1, 0] == 0.85).all(), "grey where there is nothing"


def test_a_map_tells_the_time_of_the_step_that_it_shows(built):
    parts = folders(built[0])
    windows = WindowDataset(parts.store, parts.training_set, "test")
    steps = windows.training_set.grid.shape[0]
    assert steps > 1
    for index in range(len(windows)):
        first, _, _ = windows.training_set.origin("test", index)
        times = windows.store.time[first : first + steps].astype("datetime64[h]")
        anchor = windows[index]["time"]
        assert [moment_of(windows, anchor, step) for step in range(steps)] == list(times)
        assert moment_of(windows, anchor, -1) == times[-1]
