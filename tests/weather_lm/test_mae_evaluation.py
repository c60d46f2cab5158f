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
from tasks.intervals import spells
from tasks.mae.baselines import Climatology, interpolation, persistence
from tasks.mae.evaluation import CLIMATE, INTERPOLATION, MODEL, PERSISTENCE, MaskedErrors, fit_paces, masked_errors
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
    seen: tuple[Tensor, ...] = ()

    def forward(self, data: Tensor, mask: Tensor, **context: Tensor) -> Tensor:
        assert context.keys() == {"time", "latitude", "longitude"}
        self.seen += (data,)
        return torch.where(data == 0, 1e3, data + OFF[:, None, None, None])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two channels, in which some values are missing, and two blocks of validation."""
    folder = tmp_path_factory.mktemp("mae")
    data = noise((80, 2, 16, 18))
    data[:, 1, 3:6, 2:7] = np.nan
    data[::5, 0, 0, 0] = np.nan
    sizes = WindowConfig(time=4, height=8, width=9, stride_time=4, stride_height=8, stride_width=9, max_nan_share=1)
    store = write_store(folder / "store", data, hours=12)
    build_training_set(store, sizes, SplitConfig(validation_share=0.4, test_share=0, cycles=2)).save(folder / "set")
    return folder


@pytest.fixture
def windows(folder: Path) -> WindowDataset:
    return WindowDataset(folder / "store", folder / "set", "validation")


def hidden_of(mask: Tensor) -> np.ndarray:
    """Return (T, H, W), true for every value of a hidden cell."""
    cells = mask.reshape(UNITS).numpy()
    return np.array([[[cells[t // 2, y // 4, x // 3] for x in range(9)] for y in range(8)] for t in range(4)])


def released(by_area: bool = False) -> Any:
    recipe = SimpleNamespace(latitude_weighting=by_area)
    return SimpleNamespace(network=OffByAConstant(), recipe=recipe, channels=("u", "v"))


@pytest.mark.parametrize("by_area", [False, True])
def test_errors_are_those_of_hidden_valid_values_alone(windows: WindowDataset, by_area: bool) -> None:
    climate, paces = Climatology(windows), np.array([2.0, 0.5])
    found = masked_errors(released(by_area), windows, climate, paces, most=17, ratio=0.4)
    source = MaskedWindows(windows, UNITS, 0.4, 17)
    assert source.chosen == [k * len(windows) // 17 for k in range(17)], "more than one batch"
    times = np.array([int(windows[chosen]["time"]) for chosen in source.chosen], "datetime64[s]")
    assert found.spells.tolist() == spells(times).tolist()
    assert len(set(found.spells.tolist())) == 2, "the two blocks of validation"
    for k, chosen in enumerate(source.chosen):
        sample = windows[chosen]
        data, valid = sample["data"].numpy(), sample["valid"].numpy()
        hidden = hidden_of(source.sample(k, k)["mask"])
        assert hidden.mean() == pytest.approx(5 / 12), "0.4 of 12 units"
        usual = climate.window("validation", chosen)
        visible = valid & ~hidden
        guesses = {
            MODEL: data + OFF.numpy()[:, None, None, None],
            INTERPOLATION: interpolation(data, visible, usual, paces),
            PERSISTENCE: persistence(data, visible, usual),
            CLIMATE: usual,
        }
        area = np.cos(np.radians(sample["latitude"].numpy().astype(float))) if by_area else np.ones(8)
        area = np.broadcast_to(area[:, None], WINDOW)
        assert found.sums.keys() == guesses.keys()
        for name, guess in guesses.items():
            for channel in range(2):
                counted = (valid & hidden)[channel]
                errors = (guess[channel][counted].astype(float) - data[channel][counted]) ** 2 * area[counted]
                assert found.sums[name][0, k, channel] == pytest.approx(errors.sum(), rel=1e-5)
                assert found.sums[name][1, k, channel] == pytest.approx(area[counted].sum(), rel=1e-5)
    assert found.mean(MODEL) == pytest.approx((0.25 + 4) / 2, rel=1e-5)
    assert found.by_channel(MODEL, ("u", "v")) == pytest.approx({"u": 0.25, "v": 4}, rel=1e-5)


def test_windows_are_the_same_whatever_share_of_them_is_hidden(windows: WindowDataset) -> None:
    seen = []
    for ratio in (0.25, 0.9):
        release = released()
        masked_errors(release, windows, Climatology(windows), np.ones(2), most=5, ratio=ratio)
        seen.append(torch.cat(release.network.seen))
    assert len(seen[0]) == 5
    assert torch.equal(*seen)


def test_paces_are_those_with_the_smallest_error_on_training_windows(tmp_path: Path) -> None:
    """One channel changes every 8 steps only, the other is alike everywhere; both have some noise."""
    random = np.random.default_rng(0)
    slow, wide = np.repeat(random.standard_normal((10, 16, 18)), 8, 0), random.standard_normal((80, 1, 1))
    data = np.stack([slow, wide + 0 * slow], 1) + 0.1 * random.standard_normal((80, 2, 16, 18))
    sizes = WindowConfig(time=4, height=8, width=9, stride_time=4, stride_height=8, stride_width=9)
    store = write_store(tmp_path / "store", (10 * data).astype(np.float32))
    build_training_set(store, sizes, SplitConfig(validation_share=0.4, test_share=0)).save(tmp_path / "set")
    train = WindowDataset(tmp_path / "store", tmp_path / "set", "train")
    climate = Climatology(train)
    found = fit_paces(released(), train, climate, 0.5)
    assert found[0] < 1 < found[1]

    source = MaskedWindows(train, UNITS, 0.5, 4)
    errors = {pace: np.zeros(2) for pace in (1, *found, *found / 2, *found * 2)}
    for k, chosen in enumerate(source.chosen):
        data = train[chosen]["data"].numpy()
        hidden = np.broadcast_to(hidden_of(source.sample(k, k)["mask"]), data.shape)
        for pace in errors:
            guess = interpolation(data, ~hidden, climate.window("train", chosen), np.full(2, pace))
            errors[pace] += np.where(hidden, guess - data, 0).astype(float).__pow__(2).sum((1, 2, 3))
    for channel, pace in enumerate(found):
        assert all(errors[pace][channel] <= of_pace[channel] for of_pace in errors.values())


def test_a_channel_without_a_value_has_no_part_in_the_mean() -> None:
    sums = np.array([[[6.0, 0.0], [2.0, 0.0]], [[3.0, 0.0], [1.0, 0.0]]])
    errors = MaskedErrors({MODEL: sums, CLIMATE: sums / np.array([2, 1])[:, None, None]}, np.arange(2))
    assert errors.mean(MODEL) == 2
    assert np.isnan(errors.by_channel(MODEL, ("u", "v"))["v"])
    over = errors.over_best(MODEL, [CLIMATE])
    assert over.geometric_mean.value == pytest.approx(2)
    assert np.isnan(over.by_channel[1].value)


def test_a_channel_that_a_baseline_tells_exactly_has_no_ratio() -> None:
    ours = np.array([[[6.0, 1.0]] * 3, [[3.0, 2.0]] * 3])
    theirs = ours * np.array([[0.5, 0.0], [1, 1]])[:, None]
    over = MaskedErrors({MODEL: ours, CLIMATE: theirs}, np.arange(3)).over_best(MODEL, [CLIMATE])
    assert [over.mean.value, over.geometric_mean.value] == pytest.approx([2, 2])
    assert np.isnan(over.by_channel[1].value)


BLOCKS = np.array([0, 0, 1, 2, 2, 2, 4, 5, 5])


def drawn_blocks(count: int) -> list[np.ndarray]:
    """Return the windows of so many draws of as many blocks as there are."""
    random, blocks = np.random.default_rng(0), np.unique(BLOCKS)
    return [
        np.concatenate([np.flatnonzero(block == BLOCKS) for block in random.choice(blocks, len(blocks))])
        for _ in range(count)
    ]


def plain(sums: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
    return sums[0, rows].sum(0) / sums[1, rows].sum(0)


def test_a_ratio_of_errors_resamples_blocks_the_same_for_both() -> None:
    random = np.random.default_rng(0)
    counts = random.integers(1, 9, (9, 3)).astype(float)
    ours = np.stack([random.random((9, 3)), counts])
    theirs = ours * np.array([2.0, 1.0])[:, None, None] + np.array([random.random((9, 3)) * 0.1, 0 * counts])
    errors = MaskedErrors({MODEL: ours, CLIMATE: theirs}, BLOCKS)
    found = errors.ratio(MODEL, CLIMATE, resamples=4000)
    assert found.value == pytest.approx(plain(ours).mean() / plain(theirs).mean())
    drawn = [plain(ours, rows).mean() / plain(theirs, rows).mean() for rows in drawn_blocks(4000)]
    assert [found.low, found.high] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.004)
    same = errors.ratio(MODEL, MODEL)
    assert (same.low, same.high) == (1, 1)


def test_every_channel_is_compared_with_its_best_baseline() -> None:
    random = np.random.default_rng(1)
    sums = {
        name: np.stack([(0.5 + random.random((9, 3))) * scale, np.ones((9, 3))])
        for name, scale in {
            MODEL: np.array([1, 1, 0.01]),
            INTERPOLATION: np.array([2, 9, 9]),
            PERSISTENCE: np.array([9, 3, 9]),
            CLIMATE: np.array([9, 9, 4]),
        }.items()
    }
    found = MaskedErrors(sums, BLOCKS).over_best(MODEL, (INTERPOLATION, PERSISTENCE, CLIMATE), resamples=4000)
    assert found.peers == (INTERPOLATION, PERSISTENCE, CLIMATE)

    def ratios(rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        theirs = [plain(sums[name], rows)[channel] for channel, name in enumerate(found.peers)]
        return plain(sums[MODEL], rows) / np.array(theirs)

    drawn = np.stack([ratios(rows) for rows in drawn_blocks(4000)])
    ends = np.percentile(drawn, [2.5, 97.5], axis=0)
    for channel, estimate in enumerate(found.by_channel):
        assert estimate.value == pytest.approx(ratios()[channel])
        assert [estimate.low, estimate.high] == pytest.approx(ends[:, channel], rel=0.03)
    assert found.mean.value == pytest.approx(ratios().mean())
    assert [found.mean.low, found.mean.high] == pytest.approx(np.percentile(drawn.mean(1), [2.5, 97.5]), rel=0.03)
    assert found.geometric_mean.value == pytest.approx(np.prod(ratios()) ** (1 / 3))
    geometric = np.percentile(np.prod(drawn, 1) ** (1 / 3), [2.5, 97.5])
    assert [found.geometric_mean.low, found.geometric_mean.high] == pytest.approx(geometric, rel=0.03)


@pytest.mark.parametrize(
    ("blocks", "caution"),
    [
        ([3] * 9, "there are no intervals: all windows lie in one spell of weather"),
        ([0, 0, 1, 2, 2, 2, 5, 5, 5], "intervals rest on 4 spells of weather only"),
        (BLOCKS, None),
    ],
)
def test_intervals_from_few_blocks_come_with_a_caution(blocks: list[int], caution: str | None) -> None:
    random = np.random.default_rng(2)
    names = (MODEL, INTERPOLATION, PERSISTENCE, CLIMATE)
    sums = {name: np.stack([random.random((9, 2)), np.ones((9, 2))]) for name in names}
    told = MaskedErrors(sums, np.array(blocks)).summary(("u", "v"))
    assert told.get("caution") == caution
    assert (told["windows"], told["spells"]) == (9, len(set(blocks)))
    for ratio in (told["vs_interpolation"], told["vs_best"]["mean"], told["vs_best"]["by_channel"]["v"]):
        assert (ratio["low"] is None) == (ratio["high"] is None) == (len(set(blocks)) == 1)


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
