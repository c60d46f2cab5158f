"""The whole way from generated weather to narratives, at the smallest sizes that have every part."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from configs.weather_lm import JoinConfig, NarrationEvaluation
from configs.weather_pipeline import WeatherConfig
from flows.commands.narrate import best_narrator
from flows.runs import load_runs
from models.packed import PackedEmbedding, PackedRowLinear
from storage.assets import AssetStore
from tasks.captions.checks import sample_truth
from tasks.captions.placed import load_placed
from tasks.narration.narrate import Request, narrate
from tasks.narration.pairs import Windows, join
from tasks.narration.released import NarratorRelease
from tasks.narration.truth import FieldTruth
from tasks.samples.weather_captions import day_captions
from tasks.samples.weather_units import sample_units
from tests.command import millrace
from tests.once import linked
from tests.weather_lm.tiny import CONFIG, build, folders

RECIPE = {"ternary": [], "int4": ["language.*"]}


def test_the_best_narrator_looks_at_the_weather_and_shares_the_newest_ones_tokens():
    def narrator(nll: float, language: str = "words", vision: bool = True) -> SimpleNamespace:
        config = {"language_recipe": {"model": {"pretrained": language}}, "recipe": {"vision": vision}}
        return SimpleNamespace(manifest=SimpleNamespace(inputs=[], metrics={"nll": nll}, config=config))

    newest, best = narrator(2.1), narrator(2.0)
    others = [narrator(1.9, vision=False), narrator(0.9, "letters")]
    store = cast(AssetStore, SimpleNamespace(assets=lambda kind: [others[0], newest, *others, best], name="here"))
    assert best_narrator(store) is best


def test_the_report_compares_every_narrator_with_its_controls(built):
    _, report = built
    scores = json.loads((report.folder / "scores.json").read_text())
    assert scores.keys() == {"adapter-0", "climate-0", "four_bits-0"}
    for table in scores.values():
        assert table["nats_per_token"].keys() == {"true", "shuffled", "blind"}
        assert table["gap_to_shuffled"]["low"] <= table["gap_to_shuffled"]["value"] <= table["gap_to_shuffled"]["high"]
        assert all(np.isfinite(value) for value in table["nats_per_token"].values())
    assert [table["gap_to_climate"] is None for table in scores.values()] == [False, True, False]
    assert [table["gain_over_first"] is None for table in scores.values()] == [True, False, False]
    assert scores["climate-0"]["gap"] == {"control": "shuffled", "value": 0, "low": 0, "high": 0}
    pictures = {"likelihoods.png", "adapter-0.png", "climate-0.png", "four_bits-0.png"}
    curves = {"curves_adapter-0.png", "curves_climate-0.png", "curves_language_small.png"}
    assert pictures | curves <= {p.name for p in report.folder.iterdir()}


def test_a_released_narrator_holds_the_adapter_alone(built):
    from safetensors import safe_open

    store, _ = built
    for asset in store.assets("weather_narrator"):
        assert {file.path for file in asset.manifest.files} == {"model.safetensors", "config.json", "history.json"}
        with safe_open(asset.folder / "model.safetensors", "pt") as file:
            assert {name.split(".")[0] for name in file.keys()} == {"adapter"}  # noqa: SIM118


def test_a_packed_narrator_is_one_small_file_that_says_nearly_the_same(built, tmp_path):
    store, report = built
    (packed,) = store.assets("weather_narrator_packed")
    alone = tmp_path / "model"
    shutil.copytree(packed.folder, alone)
    release = NarratorRelease.from_release(alone)  # with neither vision nor language model beside it
    kinds = {name: type(module) for name, module in release.network.named_modules()}
    assert kinds["language.hf.model.layers.0.mlp.up_proj"] is PackedRowLinear
    assert kinds["language.hf.model.embed_tokens"] is PackedEmbedding
    assert packed.manifest.metrics["logits_apart"] <= 1e-3
    assert packed.manifest.counts["bytes"] == (alone / "model.safetensors").stat().st_size
    scores = json.loads((report.folder / "scores.json").read_text())
    exact, few = (scores[name]["nats_per_token"]["true"] for name in ("adapter-0", "four_bits-0"))
    assert 0 < abs(few - exact) < 0.1, "other weights, and nearly the same"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"packed": {"adapter": {"narrator": "adapter", "recipe": {"ternary": []}}}}, "recipe"),
        ({"packed": {"climate": {"narrator": "adapter", "recipe": RECIPE}}}, "must have a name of its own"),
        ({"packed": {"few/bits": {"narrator": "adapter", "recipe": RECIPE}}}, "letters, digits, - and _ only"),
        ({"packed": {"few": {"narrator": "nobody", "recipe": RECIPE}}}, "name one of the models: adapter, climate"),
        ({"packed": {"few": {"narrator": "adapter", "recipe": {"int4": ["language.*"]}}}}, "say in recipe.ternary"),
        ({"narrators": {"adapter": {**CONFIG["narrators"]["adapter"], "adaptation": {"four_bit": True}}}},
         "packed.four_bits: .* cannot be packed"),
    ],
)  # fmt: skip
def test_what_cannot_be_packed_is_refused_before_anything_is_trained(changes, message):
    with pytest.raises(ValueError, match=message):
        WeatherConfig.model_validate({**CONFIG, **changes})


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
    lost = [replace(c, box=None) for c in captions]
    places = Windows(windows.store, windows.training_set)
    dropped = join(places, lost, JoinConfig(), "train")
    assert len(dropped) == 0
    assert sum(dropped.unused.values()) == len(captions)
    everywhere = join(places, lost, JoinConfig(unplaced="everywhere", min_day_share=0), "train")
    assert len(everywhere) > 0


def tell(store: AssetStore, output: Path, request: Request):
    asset = store.assets("weather_narrator")[0]
    release = NarratorRelease.from_release(asset.folder)
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


def test_every_released_model_is_judged_again_by_name(built, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(built[0].root, root)
    vision = millrace("evaluate", "weather_mae", root=root)
    assert vision.returncode == 0, vision.stderr
    assert "HIT" in vision.stdout
    language = millrace("evaluate", "weather_language", "--on", "weather_captions", root=root)
    assert language.returncode == 0, language.stderr
    assert float(re.search(r"^nll: (\S+)", language.stdout, re.MULTILINE)[1]) > 0
    narrator = AssetStore(root).assets("weather_narrator")[0]
    told = millrace("evaluate", narrator.key, "--on", "era5_training_set", root=root)
    assert told.returncode == 0, told.stderr
    reports = [a.folder / "scores.json" for a in AssetStore(root).assets("weather_narration_report")]
    alone, beside = sorted((json.loads(path.read_text()) for path in reports), key=len)
    ((name, table),) = alone.items()
    for among_others in ("gain_over_first", "gap_to_climate", "value_accuracy_gain_over_climate", "gap"):
        del table[among_others]
    assert table.items() <= beside[name].items(), "the same scores as beside its siblings"
    again = millrace("evaluate", "weather_narrator_packed", root=root)
    assert again.returncode == 0, again.stderr
    for unused in ("weather_captions", str(tmp_path)):
        refused = millrace("evaluate", "weather_mae", "--on", unused, root=root)
        assert refused.returncode == 2
        assert f"--on {unused}: a weather_mae is not judged on that" in refused.stderr


def test_no_model_is_judged_on_weather_that_it_knows(built, tmp_path):
    root = tmp_path / "root"
    linked(built[0].root, root)
    splits = {"validation_share": 0.2, "test_share": 0.5}
    _, other = build(root, {**CONFIG, "splits": splits, "mae": None, "captions": None, "narrators": {},
                                "ablations": {}, "packed": {}})  # fmt: skip
    assert other.kind == "era5_training_set"
    result = millrace("evaluate", "weather_mae", "--on", other.name, root=root)
    assert result.returncode == 2
    words = r"tests on 20\d\d-\d\d-\d\d to .*, and weather_mae/\w+ was trained or chosen on 20.* of the same region"
    assert re.search(words, " ".join(result.stderr.split()))


def test_the_command_tells_a_date_and_says_what_exists(built, tmp_path):
    store, _ = built
    _, pairs = folders(store).pairs("test", JoinConfig(min_day_share=1.0))
    pair = pairs.pairs[0]
    asked = ("narrate", "--date", f"{pair.date}", "--max-samples", "2", "--temperature", "0.7", "--max-new-tokens", "8")
    told = millrace(*asked, "-o", str(tmp_path), root=store.root)
    assert told.returncode == 0, told.stderr
    assert told.stdout.count(f"{pair.date} ") == 2
    (record,) = load_runs(store)
    assert (record.pipeline, record.state) == ("narrate", "Completed")
    assert {"weather_narrator", "era5_windows"} <= {name.split("/")[0] for name in record.leads_to}, "gc sees its use"
    assert len(json.loads((tmp_path / f"{pair.date}.json").read_text())) == 2
    packed = millrace(*asked, "--model", "weather_narrator_packed", "-o", str(tmp_path / "packed"), root=store.root)
    assert packed.returncode == 0, packed.stderr
    nothing = millrace("narrate", "--date", "1999-01-01", root=store.root)
    assert nothing.returncode == 2
    assert "No windows are anchored on 1999-01-01; there are windows of 2024-01-" in nothing.stderr
    assert "Traceback" not in nothing.stderr
    wrong = millrace("narrate", "--date", "soon", root=store.root)
    assert "write it as 2024-03-15" in wrong.stderr
