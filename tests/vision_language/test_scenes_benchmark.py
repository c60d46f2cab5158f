"""The benchmark of scenes: what it reads of a report, and what it compares with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench import Bench
from benchmarks.figure import Figure
from benchmarks.suite import scenes
from storage.assets import AssetStore
from storage.image_texts import read_rows
from tests.once import only

CONTROLS = {
    "microvlm_vision_gap_nats": {
        "vision_gap": ("another image", "nll_shuffled"),
        "vision_gap_to_blind": ("no image", "nll_blind"),
    },
    "microvlm_recall_gap_nats": {
        "recall_gap": ("the memory of another episode", "recall_other"),
        "recall_gap_to_misplaced": ("its memory with the image in another's place", "recall_misplaced"),
        "recall_gap_to_none": ("no memory", "recall_without"),
    },
}


def measured(vlm: AssetStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: Any) -> dict[str, Figure]:
    """Return the benchmark's figures of a pipeline with this report."""
    folders = {kind: only(vlm, kind).folder for kind in ("image_text_shards", "image_text_index")}
    folders["vlm_report"] = tmp_path
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    monkeypatch.setattr(scenes, "run_pipeline", lambda *asked: (None, folders))
    return {figure.name: figure for figure in scenes.run(Bench("scenes", tmp_path))}


def reported(vlm: AssetStore) -> dict[str, Any]:
    return json.loads((only(vlm, "microvlm_report").folder / "scores.json").read_text())


def test_the_report_of_the_pipeline_is_read_and_the_likeliest_control_is_the_peer(vlm, tmp_path, monkeypatch):
    scores = reported(vlm)
    figures = measured(vlm, tmp_path, monkeypatch, scores)
    assert figures.keys() == {*CONTROLS, "microvlm_retrieval_gain", "ternary_ppl_ratio"}
    for name, controls in CONTROLS.items():
        of_model = scores["stage2"]
        gap, (control, nats) = min(controls.items(), key=lambda item: of_model["nats"][item[1][1]])
        assert figures[name].peer == f"the same model with {control}"
        assert figures[name].peer_value == pytest.approx(of_model["nats"][nats], rel=0.01)
        assert figures[name].value == pytest.approx(of_model[gap]["low"], rel=0.01)
    rows = list(read_rows(only(vlm, "image_text_shards").folder, only(vlm, "image_text_index").folder, "test"))
    captions = list({row["key"]: row["caption"] for row in rows[::-1]}.values())[::-1][:8]
    by_colours = 8 * scenes.found_by_colours(captions)
    assert figures["microvlm_retrieval_gain"].peer_value == pytest.approx(by_colours, rel=0.01)
    assert "had 5 epochs fewer" in figures["ternary_ppl_ratio"].what


@pytest.mark.parametrize(("name", "gap"), [(name, gap) for name, gaps in CONTROLS.items() for gap in gaps])
def test_whichever_gap_is_the_smallest_is_published(vlm, tmp_path, monkeypatch, name, gap):
    scores = reported(vlm)
    scores["stage2"][gap] = {"value": -20.0, "low": -21.0, "high": -19.0}
    figure = measured(vlm, tmp_path, monkeypatch, scores)[name]
    assert (figure.value, figure.met) == (-21, False)
    assert figure.peer == f"the same model with {CONTROLS[name][gap][0]}"


def test_who_knows_colours_alone_takes_any_caption_that_names_the_same():
    """One of two red ones, one of two red ones, the only one that is red and blue, the only one that names none."""
    captions = ["A red star.", "Red: two rings, one of them red.", "Blue discs and a red star", "A reddish cross."]
    assert scenes.found_by_colours(captions) == (1 / 2 + 1 / 2 + 1 + 1) / 4
