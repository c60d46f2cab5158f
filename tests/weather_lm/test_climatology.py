"""The climate that masked values are compared with: of both training blocks, and of nothing else."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from configs.weather import SplitConfig, WindowConfig
from storage.window_dataset import WindowDataset
from tasks.era5.training_set import build_training_set
from tasks.mae import baselines
from tasks.mae.baselines import Climatology
from tests.era5.stores import noise, write_store

ROWS, COLUMNS = 12, 24


def prepared(folder: Path, data: np.ndarray) -> None:
    """Two blocks of training with validation between them, and windows across the seam."""
    windows = WindowConfig(
        time=4, height=8, width=10, stride_time=3, stride_height=4, stride_width=7, wrap_longitude=True, max_nan_share=1
    )
    splits = SplitConfig(validation_share=0.4, test_share=0, cycles=2)
    build_training_set(write_store(folder / "store", data), windows, splits).save(folder / "set")


def windows_of(folder: Path, split: str) -> WindowDataset:
    return WindowDataset(folder / "store", folder / "set", split)


def plain_climate(data: np.ndarray, windows: WindowDataset, chosen: slice) -> np.ndarray:
    """Return (hours, C, H, W): normalised means over the training steps of each hour, of all where there is none."""
    steps = [step for block in windows.training_set.splits["train"] for step in range(block.first, block.stop)][chosen]
    mean = np.array([s.mean for s in windows.training_set.statistics])[:, None, None]
    std = np.array([s.std for s in windows.training_set.statistics])[:, None, None]
    fields = {step: (data[step].astype(np.float64) - mean) / std for step in steps}
    climate = []
    for hour in range(24):
        of_hour = [field for step, field in fields.items() if step % 24 == hour] or list(fields.values())
        climate.append(np.nan_to_num(np.nanmean(np.where(np.isnan(of_hour), np.nan, of_hour), axis=0), nan=0.0))
    return np.stack(climate)


def assert_climate(windows: WindowDataset, split: str, expected: np.ndarray) -> None:
    climate = Climatology(windows)
    for index in range(0, windows.training_set.length(split), 3):
        t, y, x = windows.training_set.origin(split, index)
        columns = np.arange(x, x + 10) % COLUMNS
        planes = [expected[step % 24, :, y : y + 8][:, :, columns] for step in range(t, t + 4)]
        np.testing.assert_allclose(climate.window(split, index), np.stack(planes, 1), atol=2e-5)


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
@pytest.mark.parametrize("steps", [240, 60], ids=["every hour of the day", "some hours of the day"])
def test_the_climate_is_the_mean_of_both_training_blocks_by_hour_of_the_day(tmp_path: Path, steps: int) -> None:
    data = noise((steps, 2, ROWS, COLUMNS))
    data += 40 * np.sin(np.arange(steps, dtype=np.float32) / 24 * 2 * np.pi)[:, None, None, None]
    data[::3, 1, 2:5, 3:9] = np.nan
    data[:, 0, 7, 7] = np.nan
    prepared(tmp_path, data)
    windows = windows_of(tmp_path, "validation")
    train = windows.training_set.splits["train"]
    assert len(train) == 2
    hours = {step % 24 for block in train for step in range(block.first, block.stop)}
    assert (len(hours) == 24) == (steps == 240)
    expected = plain_climate(data, windows, slice(None))
    for split in ("validation", "train"):
        assert_climate(windows, split, expected)


def test_validation_leaves_no_trace_in_the_climate(tmp_path: Path) -> None:
    data = noise((96, 1, ROWS, COLUMNS))
    prepared(tmp_path / "a", data)
    held_out = windows_of(tmp_path / "a", "validation").training_set.splits["validation"]
    for block in held_out:
        data[block.first : block.stop] += 1e4
    prepared(tmp_path / "b", data)
    before, after = (Climatology(windows_of(tmp_path / folder, "validation")) for folder in "ab")
    for index in range(6):
        np.testing.assert_array_equal(before.window("validation", index), after.window("validation", index))


def test_a_long_training_period_is_sampled_evenly_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = noise((96, 1, ROWS, COLUMNS))
    prepared(tmp_path, data)
    windows = windows_of(tmp_path, "validation")
    length = sum(block.stop - block.first for block in windows.training_set.splits["train"])
    monkeypatch.setattr(baselines, "CLIMATE_STEPS", (length - 1) // 7 + 1)
    assert (length - 1) % 7 == 0, "so that every seventh step is an even share"
    assert_climate(windows, "validation", plain_climate(data, windows, slice(None, None, 7)))


def test_the_hour_of_the_day_is_that_of_utc(tmp_path: Path) -> None:
    """Values that are the hour: their climate at any step is that hour, whatever the day."""
    hours = np.arange(120, dtype=np.float32) % 24
    data = np.broadcast_to(hours[:, None, None, None], (120, 1, ROWS, COLUMNS)).copy()
    prepared(tmp_path, data)
    windows = windows_of(tmp_path, "validation")
    climate = Climatology(windows)
    (statistics,) = windows.training_set.statistics
    for index in range(0, len(windows), 5):
        first = windows.training_set.splits["validation"][0].start
        t = windows.training_set.origin("validation", index)[0]
        start = first + timedelta(hours=t - windows.training_set.splits["validation"][0].first)
        told = climate.window("validation", index)[0, :, 0, 0] * statistics.std + statistics.mean
        np.testing.assert_allclose(told, [(start.hour + k) % 24 for k in range(4)], atol=1e-3)
