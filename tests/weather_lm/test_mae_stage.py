"""Pretraining on real stores: what is hidden, what counts, and which windows a released model refuses."""

from __future__ import annotations

import csv
import json
import pickle
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from configs.weather_pipeline import WeatherConfig
from flows.runner import run
from flows.weather import PIPELINE
from models.weather.sat_swin_mae import SatSwinMAE
from storage.assets import AssetStore
from storage.window_dataset import WindowDataset
from tasks.mae.baselines import Climatology
from tasks.mae.evaluation import BASELINES, GUESSERS, MODEL, fit_paces, masked_errors
from tasks.mae.objective import CONTEXT, MaeObjective, MaskedWindows, collate
from tasks.mae.onnx import ReconstructionGraph
from tasks.mae.released import MaeRelease
from tasks.progress import Silent
from tasks.training.loader import ordered_batches
from tasks.training.share import Share
from tests.command import millrace
from tests.once import only
from tests.weather_lm.tiny import CONFIG, folders

INT8 = WeatherConfig.model_validate(
    CONFIG | {"captions": None, "narrators": {}, "ablations": {}, "packed": {}, "mae_int8": {}}
)


@pytest.fixture
def release(built) -> MaeRelease:
    return MaeRelease.from_release(only(built[0], "weather_mae").folder)


@pytest.fixture
def windows(built) -> WindowDataset:
    return folders(built[0]).windows("validation")


@pytest.fixture
def objective(built) -> MaeObjective:
    parts = folders(built[0])
    return MaeObjective({"store": parts.store, "training_set": parts.training_set, "recipe": CONFIG["mae"]})


def test_a_store_with_other_channels_is_refused_by_name(release, windows):
    sentence = r"Channel mismatch vs checkpoint: the store has 5 channels .*tp.* in_chans is 4"
    with pytest.raises(ValueError, match=sentence):
        replace(release, statistics=release.statistics[:-1]).check(windows)


def test_windows_of_another_size_are_refused(release, windows):
    other = replace(release, network=SatSwinMAE(release.recipe.model, 5, (2, 8, 8)))
    with pytest.raises(ValueError, match=r"the windows are \(4, 8, 8\).*trained on \(2, 8, 8\)"):
        other.check(windows)


def test_windows_with_another_normalisation_are_refused(release, windows):
    release.check(windows)
    shifted = tuple(s.model_copy(update={"mean": s.mean + 0.01 * s.std}) for s in release.statistics)
    with pytest.raises(ValueError, match="normalised by other statistics than those that the encoder was trained with"):
        replace(release, statistics=shifted).check(windows)


def test_a_released_model_is_shown_windows_as_it_was_trained_on_them_whatever_their_training_set_says(built, release):
    own = folders(built[0])
    usual = WindowDataset(own.store, own.training_set, "test")
    shifted = tuple(s.model_copy(update={"mean": s.mean + s.std, "std": 2 * s.std}) for s in release.statistics)
    windows = replace(release, statistics=shifted).windows(own.store, own.training_set, "test")
    here, there = usual[0], pickle.loads(pickle.dumps(windows))[0]
    assert torch.allclose(there["data"], ((here["data"] - 1) / 2).where(here["valid"], 0), atol=1e-4)
    physical = [each.physical(sample["data"], sample["valid"]) for each, sample in ((usual, here), (windows, there))]
    assert torch.allclose(*physical, rtol=1e-4, atol=1e-4, equal_nan=True)


def validation(objective: MaeObjective) -> list[dict[str, torch.Tensor]]:
    return list(ordered_batches(Share(), objective.source("validation"), collate, batch_size=1))


def test_validation_masks_are_the_same_in_every_evaluation_and_differ_between_windows(objective):
    first, second = ([batch["mask"].numpy().tobytes() for batch in validation(objective)] for _ in range(2))
    assert first == second
    assert len(set(first)) > 1


def test_evaluation_is_the_mean_over_hidden_and_valid_values_by_channel(objective):
    model = objective.build().eval()
    size = objective.recipe.model.cell
    errors: list[list[float]] = [[] for _ in objective.channels]
    with torch.no_grad():
        found = objective.evaluate(model, Share())
        for batch in validation(objective):
            rebuilt = model(batch["data"], batch["mask"], **{name: batch[name] for name in CONTEXT})[0].numpy()
            gaps, valid = rebuilt - batch["data"][0].numpy(), batch["valid"][0].numpy()
            for unit in np.argwhere(batch["mask"][0].reshape(objective.units).numpy()):
                cell = tuple(slice(at * n, (at + 1) * n) for at, n in zip(unit, size, strict=True))
                for channel, values in enumerate(errors):
                    values += (gaps[channel][cell][valid[channel][cell]].astype(float) ** 2).tolist()
    by_channel = [np.mean(values) for values in errors]
    assert found["masked_mse"] == pytest.approx(np.mean(by_channel), rel=1e-5)
    for name, value in zip(objective.channels, by_channel, strict=True):
        assert found[f"masked_mse_{name}"] == pytest.approx(value, rel=1e-5)


def test_training_masks_come_from_the_seed_alone(windows):
    source = MaskedWindows(windows, (2, 2, 2), 0.75)
    assert torch.equal(source.sample(0, 5)["mask"], source.sample(1, 5)["mask"])
    assert not all(torch.equal(source.sample(0, 5)["mask"], source.sample(0, seed)["mask"]) for seed in range(6, 12))


def test_the_report_judges_the_model_beside_its_baselines(built, release):
    folder = only(built[0], "weather_mae_report").folder
    errors = json.loads((folder / "errors.json").read_text())
    assert errors["by_channel"].keys() == errors["by_ratio"].keys() == set(GUESSERS)
    assert all(len(by_ratio) == 4 for by_ratio in errors["by_ratio"].values())
    assert errors["caution"] == "intervals rest on 2 spells of weather only"
    for judged in (errors, errors["validation"]):
        found, best = judged["by_channel"], judged["vs_best"]
        means = {name: np.mean([*by_channel.values()]) for name, by_channel in found.items()}
        assert judged["error"] == pytest.approx(means)
        ratios = [found[MODEL][c] / min(found[name][c] for name in BASELINES) for c in release.channels]
        assert [ratio["value"] for ratio in best["by_channel"].values()] == pytest.approx(ratios)
        assert best["geometric_mean"]["value"] == pytest.approx(np.prod(ratios) ** (1 / len(ratios)))
        assert all(found[name][c] == min(found[n][c] for n in BASELINES) for c, name in best["baseline"].items())
    table = [*csv.reader((folder / "errors.csv").open())]
    assert [row[0] for row in table] == ["channel", *release.channels, "mean", "geometric mean"]
    assert table[1][1:5] == [f"{errors['by_channel'][name][release.channels[0]]:.4g}" for name in GUESSERS]
    assert table[-1][5:] == ["", *(f"{end:.4g}" for end in errors["vs_best"]["geometric_mean"].values())]
    assert {"errors.png", "reconstructions.png", "curves.png"} <= {path.name for path in folder.iterdir()}


def test_validation_windows_are_judged_in_the_report_by_the_same_paces(built, release, windows):
    errors = json.loads((only(built[0], "weather_mae_report").folder / "errors.json").read_text())
    ratio, paces = release.recipe.mask_ratio, np.array([*errors["paces"].values()])
    train = folders(built[0]).windows("train")
    np.testing.assert_array_equal(paces, fit_paces(release, train, Climatology(train), ratio))
    found = masked_errors(release, windows, Climatology(train), paces, 1, ratio)
    for name in GUESSERS:
        assert errors["validation"]["by_channel"][name] == pytest.approx(found.by_channel(name, release.channels))


def plain_error(release: MaeRelease, windows: WindowDataset, most: int) -> float:
    """Return the mean over channels of the mean squared error of hidden valid values."""
    network, errors = release.network, [[] for _ in release.channels]
    source = MaskedWindows(windows, network.units, release.recipe.mask_ratio, most)
    for k in range(len(source)):
        batch = collate([source.sample(k, k)])
        with torch.no_grad():
            rebuilt = network(batch["data"], batch["mask"], **{name: batch[name] for name in CONTEXT})[0].numpy()
        hidden = batch["mask"][0].reshape(network.units).numpy()
        for axis, size in enumerate(network.config.cell):
            hidden = hidden.repeat(size, axis)
        gaps = rebuilt - batch["data"][0].numpy()
        for values, gap, valid in zip(errors, gaps, batch["valid"][0].numpy(), strict=True):
            values += (gap[hidden & valid].astype(float) ** 2).tolist()
    return float(np.mean([np.mean(values) for values in errors]))


@pytest.mark.long
def test_a_model_in_8_bits_rebuilds_nearly_the_same_and_is_judged_by_name(built, release, windows, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(built[0].root, root, ignore=shutil.ignore_patterns(".locks"))
    run(PIPELINE, INT8, root, Silent(), workers="inline")
    small = only(root, "weather_mae_int8")
    metrics = small.manifest.metrics
    assert metrics["error_exact"] == pytest.approx(plain_error(release, windows, 32), rel=1e-4)
    assert metrics["apart"] < 1e-3
    assert metrics["error"] == pytest.approx(metrics["error_exact"], rel=0.05)
    assert metrics["peak_mb"] < 250, "a process that does not import torch"
    network = MaeRelease.from_release(small.folder).network
    assert not [*network.parameters()], "all of it is in the file"
    assert {file.name for file in small.folder.iterdir()} >= {"model.onnx", "config.json"}
    shown = millrace("show", small.name, root=root).stdout
    assert re.search(rf"model.onnx +{(small.folder / 'model.onnx').stat().st_size:,}", shown)
    judged = millrace("evaluate", small.name, root=root)
    assert judged.returncode == 0, judged.stderr


@pytest.mark.long
def test_a_file_that_computes_something_else_is_not_released(built, tmp_path, monkeypatch):
    class Other(ReconstructionGraph):
        def forward(self, *inputs):
            return 1.01 * super().forward(*inputs)

    monkeypatch.setattr("tasks.mae.onnx.ReconstructionGraph", Other)
    root = tmp_path / "root"
    shutil.copytree(built[0].root, root, ignore=shutil.ignore_patterns(".locks"))
    with pytest.raises(ChildProcessError, match=r"reconstructions of the ONNX file are off by"):
        run(PIPELINE, INT8, root, Silent(), workers="inline")
    assert not AssetStore(root).assets("weather_mae_int8")


def test_what_stands_in_for_a_network_is_code_of_this_project(built, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(only(built[0], "weather_mae").folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").chmod(0o644)
    (folder / "config.json").write_text(json.dumps(config | {"computed_by": "subprocess:run"}))
    with pytest.raises(ValueError, match="says that 'subprocess:run' computes, which does not exist here"):
        MaeRelease.from_release(folder)
