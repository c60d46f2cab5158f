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


def prepared(folder: Path, data: np.ndarray, cycles: int = 2, hours: int = 1) -> None:
    """Blocks of training with validation between them, and windows across the seam."""
    windows = WindowConfig(
        time=4, height=8, width=10, stride_time=3, stride_height=4, stride_width=7, wrap_longitude=True, max_nan_share=1
    )
    splits = SplitConfig(validation_share=0.4, test_share=0, cycles=cycles)
    build_training_set(write_store(folder / "store", data, hours=hours), windows, splits).save(folder / "set")


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
    prepared(tmp_path, data, hours=12)
    windows = windows_of(tmp_path, "validation")
    steps = [step for block in windows.training_set.splits["train"] for step in range(block.first, block.stop)]
    monkeypatch.setattr(baselines, "CLIMATE_STEPS", 12)
    (statistics,) = windows.training_set.statistics
    expected = []
    for hour in (0, 1):
        of_hour = [step for step in steps if step % 2 == hour]
        chosen = [of_hour[int(k * (len(of_hour) - 1) / 5)] for k in range(6)]
        expected.append((data[chosen].astype(np.float64).mean(0) - statistics.mean) / statistics.std)
    assert_climate(windows, "validation", np.stack(expected * 12))


def plain_year(data: np.ndarray, windows: WindowDataset) -> np.ndarray:
    """Return (steps, C, H, W) at 12 h: normalised least squares of each cell and time of day, its mean in the gaps."""
    steps = np.array([s for block in windows.training_set.splits["train"] for s in range(block.first, block.stop)])
    mean, std = (
        np.array([getattr(s, name) for s in windows.training_set.statistics])[:, None, None] for name in ("mean", "std")
    )
    fields = (data.astype(np.float64) - mean) / std
    climate = np.empty_like(fields)
    for half in (0, 1):
        known = steps[steps % 2 == half]
        at = np.arange(half, len(data), 2)
        waves = {
            key: np.stack([f(2 * np.pi * k * days / 365.2425) for k in (1, 2) for f in (np.sin, np.cos)], 1)
            for key, days in (("known", known / 2), ("at", at / 2))
        }
        for c, y, x in np.ndindex(data.shape[1:]):
            values = fields[known, c, y, x]
            values = np.where(np.isnan(values), np.nanmean(values), values)
            fit = np.linalg.lstsq(np.column_stack([np.ones(len(known)), waves["known"]]), values, rcond=None)[0]
            climate[at, c, y, x] = fit[0] + waves["at"] @ fit[1:]
    return climate


def test_training_blocks_all_over_the_year_give_the_climate_its_seasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "CLIMATE_STEPS", 2000)
    data = noise((800, 2, ROWS, COLUMNS))
    days = np.arange(800, dtype=np.float32)[:, None, None, None] / 2
    data += 30 * np.sin(days / 365.2425 * 2 * np.pi + 1) * (1 + np.arange(800)[:, None, None, None] % 2)
    data[::3, 1, 2:5, 3:9] = np.nan
    prepared(tmp_path, data, cycles=8, hours=12)
    windows = windows_of(tmp_path, "validation")
    expected, climate = plain_year(data, windows), Climatology(windows)
    for split in ("validation", "train"):
        for index in range(0, windows.training_set.length(split), 7):
            t, y, x = windows.training_set.origin(split, index)
            planes = expected[t : t + 4, :, y : y + 8][..., np.arange(x, x + 10) % COLUMNS]
            np.testing.assert_allclose(climate.window(split, index), planes.swapaxes(0, 1), atol=2e-5)


@pytest.mark.parametrize(("cycles", "seasonal"), [(3, False), (4, True)], ids=["gaps of 55 days", "gaps of 44 days"])
def test_no_seasons_are_fitted_across_more_than_an_eighth_of_the_year(
    tmp_path: Path, cycles: int, seasonal: bool
) -> None:
    data = noise((800, 1, ROWS, COLUMNS)) + np.arange(800, dtype=np.float32)[:, None, None, None] / 10
    prepared(tmp_path, data, cycles=cycles, hours=12)
    windows = windows_of(tmp_path, "validation")
    climate, per_time = Climatology(windows), windows.training_set.grid.per_time
    now, later = (climate.window("validation", index) for index in (0, 2 * per_time))
    origins = [windows.training_set.origin("validation", index) for index in (0, 2 * per_time)]
    assert origins[1] == (origins[0][0] + 6, *origins[0][1:]), "the same place three days later"
    assert (now != later).any() == seasonal


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
