"""Errors of masked values, of networks whose answers are known and of the baselines, against plain NumPy."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from configs.weather import SplitConfig, WindowConfig
from storage.sampling import sample_seed
from storage.window_dataset import WindowDataset
from tasks.era5.training_set import build_training_set
from tasks.mae.baselines import Climatology, interpolation, persistence
from tasks.mae.evaluation import CLIMATE, INTERPOLATION, MODEL, PERSISTENCE, channel_errors, masked_errors, mean_error
from tasks.mae.objective import MaeObjective, MaskedWindows
from tasks.training.share import Share
from tests.era5.stores import noise, write_store
from tests.weather_lm.tiny import CONFIG

UNITS, CELL, WINDOW = (2, 2, 3), (2, 4, 3), (4, 8, 9)
OFF = torch.tensor([0.5, -2.0])
"""By how much the network is off, by channel."""


class OffByAConstant(nn.Module):
    """It is given the whole window; what it makes of it is off by a constant, and wild where the value is missing."""

    units, config, window = UNITS, SimpleNamespace(cell=CELL), WINDOW

    def forward(self, data: Tensor, mask: Tensor, **context: Tensor) -> Tensor:
        assert context.keys() == {"time", "latitude", "longitude"}
        return torch.where(data == 0, 1e3, data + OFF[:, None, None, None])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two channels, in which some values are missing, and a validation period."""
    folder = tmp_path_factory.mktemp("mae")
    data = noise((80, 2, 16, 18))
    data[:, 1, 3:6, 2:7] = np.nan
    data[::5, 0, 0, 0] = np.nan
    sizes = WindowConfig(time=4, height=8, width=9, stride_time=4, stride_height=8, stride_width=9, max_nan_share=1)
    store = write_store(folder / "store", data)
    build_training_set(store, sizes, SplitConfig(validation_share=0.4, test_share=0)).save(folder / "set")
    return folder


@pytest.fixture
def windows(folder: Path) -> WindowDataset:
    return WindowDataset(folder / "store", folder / "set", "validation")


def hidden_of(mask: Tensor) -> np.ndarray:
    """Return (T, H, W), true for every value of a hidden cell."""
    cells = mask.reshape(UNITS).numpy()
    return np.array([[[cells[t // 2, y // 4, x // 3] for x in range(9)] for y in range(8)] for t in range(4)])


def test_errors_are_those_of_hidden_valid_values_alone(windows: WindowDataset) -> None:
    release: Any = SimpleNamespace(network=OffByAConstant())
    climate = Climatology(windows)
    found = masked_errors(release, windows, climate, most=5, ratio=0.4)
    source = MaskedWindows(windows, UNITS, 0.4, 5)
    assert source.chosen == [k * len(windows) // 5 for k in range(5)]
    for k, chosen in enumerate(source.chosen):
        sample = windows[chosen]
        data, valid = sample["data"].numpy(), sample["valid"].numpy()
        hidden = hidden_of(source.sample(k, k)["mask"])
        assert hidden.mean() == pytest.approx(5 / 12), "0.4 of 12 units"
        usual = climate.window("validation", chosen)
        visible = valid & ~hidden
        guesses = {
            MODEL: data + OFF.numpy()[:, None, None, None],
            INTERPOLATION: interpolation(data, visible, usual),
            PERSISTENCE: persistence(data, visible, usual),
            CLIMATE: usual,
        }
        assert found.keys() == guesses.keys()
        for name, guess in guesses.items():
            for channel in range(2):
                counted = (valid & hidden)[channel]
                errors = (guess[channel][counted].astype(float) - data[channel][counted]) ** 2
                assert found[name][0, k, channel] == pytest.approx(errors.sum(), rel=1e-5)
                assert found[name][1, k, channel] == counted.sum()
    assert mean_error(found[MODEL]) == pytest.approx((0.25 + 4) / 2, rel=1e-5)
    assert channel_errors(found[MODEL], ("u", "v")) == pytest.approx({"u": 0.25, "v": 4}, rel=1e-5)


def test_a_channel_without_a_value_has_no_part_in_the_mean() -> None:
    sums = np.array([[[6.0, 0.0], [2.0, 0.0]], [[3.0, 0.0], [1.0, 0.0]]])
    assert mean_error(sums) == 2
    assert np.isnan(channel_errors(sums, ("u", "v"))["v"])


@pytest.mark.parametrize("by_area", [False, True])
def test_an_evaluation_weighs_hidden_valid_values_of_all_windows_alike(folder: Path, by_area: bool) -> None:
    recipe = CONFIG["mae"] | {"validation_windows": 21, "mask_ratio": 0.5, "latitude_weighting": by_area}
    recipe["model"] = recipe["model"] | {"patch": [1, 4, 3], "window": [2, 2, 2]}
    objective = MaeObjective({"store": folder / "store", "training_set": folder / "set", "recipe": recipe})
    cell = objective.recipe.model.cell
    source = objective.source("validation")
    assert len(source) == 21, "more than fit into one batch"
    sums, weights, means = np.zeros(2), np.zeros(2), np.zeros(2)
    for index in range(len(source)):
        sample = source.sample(index, sample_seed(0, 0, index))
        cells = sample["mask"].reshape(objective.units)
        for c, t, y, x in np.argwhere(sample["valid"].numpy()):
            if cells[t // cell[0], y // cell[1], x // cell[2]]:
                weight = np.cos(np.radians(float(sample["latitude"][y]))) if by_area else 1.0
                weights[c] += weight
                sums[c] += weight * float(OFF[c]) ** 2
                means[c] += weight * float(sample["data"][c, t, y, x]) ** 2
    found = objective.evaluate(OffByAConstant(), Share())
    assert found["masked_mse"] == pytest.approx(np.mean(sums / weights), rel=1e-5)
    assert found["masked_mse_of_means"] == pytest.approx(np.mean(means / weights), rel=1e-5)
    assert found["masked_mse_u10"] == pytest.approx(0.25, rel=1e-5)
    assert found["masked_mse_v10"] == pytest.approx(4, rel=1e-5)
