"""Statistics of training periods that have more than one block, against plain NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from configs.weather import SplitConfig, WindowConfig
from tasks.era5 import training_set as building
from tasks.era5.training_set import build_training_set, channel_statistics
from tests.era5.stores import noise, write_store

WINDOWS = WindowConfig(time=4, height=16, width=16, stride_time=4, stride_height=16, stride_width=16, max_nan_share=1)
TWICE = SplitConfig(validation_share=0.2, test_share=0.2, cycles=2)


def weather() -> np.ndarray:
    """A value that is another one in every step, a missing step of one channel and missing points of the other."""
    data = noise((120, 2, 20, 32))
    data += np.arange(120, dtype=np.float32)[:, None, None, None] ** 2
    data[20, 0] = np.nan
    data[:, 1, 3:9, 5:17] = np.nan
    return data


@pytest.mark.parametrize("steps_at_once", [3, 7, 2048])
def test_statistics_count_every_step_of_both_blocks_once_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps_at_once: int
) -> None:
    monkeypatch.setattr(building, "BATCH_STEPS", steps_at_once)
    data = weather()
    found = build_training_set(write_store(tmp_path, data), WINDOWS, TWICE)
    blocks = found.splits["train"]
    assert len(blocks) == 2
    assert blocks[1].first - blocks[0].stop > 30, "validation and test lie between the blocks"
    inside = np.concatenate([data[block.first : block.stop] for block in blocks]).astype(np.float64)
    for channel, statistics in enumerate(found.statistics):
        there = inside[:, channel][~np.isnan(inside[:, channel]).all(axis=(1, 2))]
        values = there[~np.isnan(there)]
        assert statistics.count == values.size
        assert (statistics.min, statistics.max) == (values.min(), values.max())
        np.testing.assert_allclose(
            [statistics.mean, statistics.std, statistics.nan_share],
            [values.mean(), values.std(), np.isnan(there).mean()],
            rtol=1e-10,
        )


def test_what_lies_outside_of_the_training_blocks_changes_no_statistic(tmp_path: Path) -> None:
    data = weather()
    periods = [(8, 40), (77, 101)]
    before = channel_statistics(write_store(tmp_path / "a", data), periods)
    outside = np.ones(len(data), bool)
    for first, stop in periods:
        outside[first:stop] = False
    data[outside] = -(10**6)
    assert channel_statistics(write_store(tmp_path / "b", data), periods) == before
