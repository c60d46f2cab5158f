"""Profiles: those that come along are valid, and one may extend another."""

from __future__ import annotations

import pytest

from configs.load import load_config, profile_names, profile_path, read_profile
from configs.weather_pipeline import WeatherConfig
from flows.pipelines import find_pipeline, pipeline_names


@pytest.mark.parametrize(("pipeline", "profile"), [(p, name) for p in pipeline_names() for name in profile_names(p)])
def test_every_profile_is_valid(pipeline, profile):
    load_config(find_pipeline(pipeline).config, profile_path(pipeline, profile))


def test_a_profile_on_a_gpu_is_the_other_one_but_for_how_it_trains():
    ours, theirs = (read_profile(profile_path("wildfire", name)) for name in ("archive_gpu", "archive"))
    assert ours["models"]["emberformer"]["training"] == {
        **theirs["models"]["emberformer"]["training"], "epochs": 12, "batch_size": 16, "precision": "bf16",
        "evaluate_every": 12,
    }  # fmt: skip
    assert ours["ablations"]["unet_s"]["set"] == {**theirs["ablations"]["unet_s"]["set"], "training.epochs": 24}
    assert ours["ablations"].keys() == theirs["ablations"].keys()
    assert {name: ours[name] for name in ("source", "tokens", "seeds")} == {
        name: theirs[name] for name in ("source", "tokens", "seeds")
    }


def test_groups_merge_unless_they_are_of_another_kind_or_taken_away(tmp_path):
    (tmp_path / "base.yaml").write_text("source: {kind: sample, fires: 80}\na: {b: {c: 1, d: 2}, e: [1, 2], g: {}}")
    (tmp_path / "own.yaml").write_text(
        "extends: base\nsource: {kind: archive, path: x}\na: {b: {c: 3}, e: [4], g: null}\nf: null"
    )
    assert read_profile(tmp_path / "own.yaml") == {
        "source": {"kind": "archive", "path": "x"}, "a": {"b": {"c": 3, "d": 2}, "e": [4]}, "f": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("base", "own"), [("", "extends: nothing"), ("extends: own", "extends: base"), ("", "extends: own")]
)
def test_a_profile_that_extends_nothing_or_itself_is_refused(tmp_path, base, own):
    (tmp_path / "base.yaml").write_text(base)
    (tmp_path / "own.yaml").write_text(own)
    with pytest.raises(ValueError, match=r"extends (nothing|own|base), but .* is no other profile"):
        read_profile(tmp_path / "own.yaml")


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("source.days=0", "source.days: "),
        ("source.kind=nowhere", "source: "),
        ("source={kind: files}", "source.paths: Field required"),
        ("source={kind: files, paths: [a], path: b}", "source.path: there is no such field"),
        ("recipe.variables=[{variable: tp, nan: never}]", "recipe.variables.0.nan: "),
        (
            "narrators.adapter.training.best={metric: nll}",
            "narrators.adapter.training.best: does not say which way nll",
        ),
        (
            "narrators.adapter.training.early_stop={metric: nll, patience: 3}",
            "narrators.adapter.training.early_stop: does not say which way nll gets better; write `mode: max`",
        ),
        ("source={kind: cds, start: 2024-01-02, end: 2024-01-01, single_level: [a]}", "source: end (2024-01-01)"),
    ],
)
def test_an_error_names_the_field_as_it_was_written(override: str, field: str) -> None:
    with pytest.raises(ValueError, match=r"demo\.yaml: ") as error:
        load_config(WeatherConfig, profile_path("weather", "demo"), [override])
    assert str(error.value).startswith(f"demo.yaml: {field}")
