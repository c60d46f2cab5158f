"""The whole way from generated weather to narratives, at the smallest sizes that have every part."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from configs.weather_lm import JoinConfig, NarrationEvaluation
from configs.weather_pipeline import WeatherConfig
from flows.weather import weather
from storage.assets import Asset, AssetStore
from tasks.captions.checks import sample_truth
from tasks.captions.placed import load_placed
from tasks.narration.dataset import PairFolders
from tasks.narration.narrate import Request, narrate
from tasks.narration.pairs import Windows, join
from tasks.narration.released import load_narrator
from tasks.narration.truth import FieldTruth
from tasks.progress import Silent
from tasks.samples.weather_captions import day_captions
from tasks.samples.weather_units import sample_units
from tasks.session import Session
from tasks.units import Workers

TRAINING = {"epochs": 1, "steps_per_epoch": 3, "batch_size": 4}
CONFIG = {
    "source": {"kind": "sample", "days": 30, "step_hours": 6, "resolution": 2.0, "levels": []},
    "recipe": {"variables": ["u10", "v10", "t2m", "msl", {"variable": "tp", "accumulation": "hourly"}]},
    "store": {"chunk_time": 4, "chunk_space": 8, "shard_time": 24},
    "windows": {"time": 4, "height": 8, "width": 8, "stride_time": 4, "stride_height": 4, "stride_width": 4,
                "cover_edges": True},
    "splits": {"validation_share": 0.2, "test_share": 0.2},
    "captions": {"join": {"min_day_share": 1.0}},
    "mae": {
        "model": {"patch": [2, 2, 2], "window": [2, 2, 2], "width": 12, "depths": [1, 1], "heads": [2, 2],
                  "decoder_width": 12, "decoder_heads": 2},
        "validation_windows": 8, "report_windows": 4,
        "training": {**TRAINING, "learning_rates": {"all": 1e-3}},
    },
    "languages": {
        "small": {
            "model": {"kind": "llama", "pretrained": None, "sizes": {
                "hidden": 16, "layers": 1, "heads": 2, "kv_heads": 2, "intermediate": 16, "positions": 192}},
            "text": {"vocabulary": 400, "length": 64, "held_out": 0.2,
                     "training": {**TRAINING, "learning_rates": {"all": 1e-3}}},
        }
    },
    "narrators": {
        "adapter": {
            "language": "small", "prefixer": {"tokens": 4, "heads": 2}, "validation_samples": 8,
            "training": {**TRAINING, "learning_rates": {"adapter": 1e-3}},
        }
    },
    "ablations": {"mean": {"of": "adapter", "set": {"prefixer.pooling": "mean"}}},
    "evaluation": {"samples": 8, "texts": 4, "max_new_tokens": 8, "resamples": 100, "pictures": 2},
    "execution": {"device": "cpu", "threads": 1, "wandb": {"mode": "disabled"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[AssetStore, Asset]:
    store = AssetStore(tmp_path_factory.mktemp("weather_lm") / "assets")
    with Session(store, Silent(), workers=Workers("inline")).active():
        return store, weather(WeatherConfig.model_validate(CONFIG))


def only(store: AssetStore, kind: str) -> Asset:
    (asset,) = store.assets(kind)
    return asset


def folders(store: AssetStore) -> PairFolders:
    kinds = ("era5_windows", "era5_training_set", "weather_captions")
    return PairFolders(*(only(store, kind).folder for kind in kinds))


def test_the_report_compares_every_narrator_with_its_controls(built):
    _, report = built
    scores = json.loads((report.folder / "scores.json").read_text())
    assert scores.keys() == {"adapter-0", "mean-0"}
    for table in scores.values():
        assert table["nats_per_token"].keys() == {"true", "shuffled", "blind"}
        assert table["gap_to_shuffled"]["low"] <= table["gap_to_shuffled"]["value"] <= table["gap_to_shuffled"]["high"]
        assert all(np.isfinite(value) for value in table["nats_per_token"].values())
    assert {"likelihoods.png", "adapter-0.png", "mean-0.png"} <= {p.name for p in report.folder.iterdir()}


def test_a_released_narrator_holds_the_adapter_alone(built):
    from safetensors import safe_open

    store, _ = built
    for asset in store.assets("weather_narrator"):
        with safe_open(asset.folder / "model.safetensors", "pt") as file:
            assert {name.split(".")[0] for name in file.keys()} == {"adapter"}  # noqa: SIM118


def test_no_day_is_told_about_in_two_splits_and_every_window_shows_its_region(built):
    store, _ = built
    days = {}
    for split in ("train", "validation", "test"):
        windows, pairs = folders(store).pairs(split, JoinConfig(min_day_share=1.0))
        boxes = {index: box for found in Windows(windows.store, windows.training_set).of(split).values()
                 for index, box, _ in found}  # fmt: skip
        days[split] = {pair.date for pair in pairs.pairs}
        for pair in pairs.pairs:
            assert pair.box is not None
            north, _, south, _ = boxes[pair.window]
            assert north >= pair.box[2]
            assert south <= pair.box[0]
            anchor = np.datetime64(int(windows[pair.window]["time"]), "s").astype("datetime64[D]")
            assert anchor.item() == pair.date
    assert all(days.values())
    assert not days["train"] & days["validation"]
    assert not days["train"] & days["test"]


def test_the_fields_say_what_the_generator_said(built):
    store, _ = built
    config = WeatherConfig.model_validate(CONFIG).source
    units = [unit for unit in sample_units(config) if unit.kind == "captions"]
    said = next(s for unit in units for s in day_captions(config, unit) if s.day == date(2024, 1, 5))
    windows, _ = folders(store).pairs("test", JoinConfig())
    truth = FieldTruth(windows.store)
    boxes = {c.region: c.box for c in load_placed(folders(store).captions)}
    for region, values in said.statistics.items():
        found = truth.day(said.day, boxes[region])
        expected = sample_truth(values)
        for key in found.keys() & expected.keys():
            assert found[key] == pytest.approx(expected[key], abs=0.05, rel=0.02), (region, key)
        assert ("temperature", "change") in found


def test_captions_that_cannot_be_placed_are_counted_not_paired(built):
    store, _ = built
    windows, _ = folders(store).pairs("train", JoinConfig())
    captions = load_placed(folders(store).captions)
    from dataclasses import replace

    lost = [replace(c, box=None) for c in captions]
    places = Windows(windows.store, windows.training_set)
    dropped = join(places, lost, JoinConfig(), "train")
    assert len(dropped) == 0
    assert sum(dropped.unused.values()) == len(captions)
    everywhere = join(places, lost, JoinConfig(unplaced="everywhere", min_day_share=0), "train")
    assert len(everywhere) > 0


def tell(store: AssetStore, output: Path, request: Request):
    asset = store.assets("weather_narrator")[0]
    release = load_narrator(asset.folder, only(store, "weather_mae").folder, only(store, "weather_language").folder)
    writing = NarrationEvaluation(max_new_tokens=8)
    return narrate(release, folders(store), JoinConfig(min_day_share=1.0), request, writing, output)


def test_a_date_is_told_with_maps_and_the_same_words_again(built, tmp_path):
    store, _ = built
    _, pairs = folders(store).pairs("test", JoinConfig(min_day_share=1.0))
    pair = pairs.pairs[0]
    first = tell(store, tmp_path / "a", Request(pair.date, pair.region))
    again = tell(store, tmp_path / "b", Request(pair.date, pair.region))
    assert first == again
    assert first[0].region == pair.region
    assert first[0].captions == pair.texts
    assert (tmp_path / "a" / f"{pair.date}.json").is_file()
    assert (tmp_path / "a" / f"{pair.date}_test.png").is_file()


def test_a_date_without_windows_is_answered_with_those_that_exist(built, tmp_path):
    store, _ = built
    with pytest.raises(ValueError, match="No windows are anchored on 2031-01-01; there are windows of 2024-01-"):
        tell(store, tmp_path, Request(date(2031, 1, 1)))


def test_an_unknown_region_is_answered_with_known_ones(built, tmp_path):
    store, _ = built
    with pytest.raises(ValueError, match="they know"):
        tell(store, tmp_path, Request(date(2024, 1, 5), "Atlantis"))
