"""Every family is released and read again by one contract, without knowing which family it is."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from tasks.training.release import CONFIG, WEIGHTS, Release, write_config, write_weights
from tests.objectives.cases import CASES, Data
from tests.once import only

NAMES = (
    "fire: front", "fire: sam", "mae", "language: llama", "language: qwen2", "language: hrm_act",
    "narrator: lora, muon", "narrator: 4 bits", "captions", "vlm: stage 1", "vlm: stage 2, by words, prefix",
    "vlm: 4 bits", "vlm: ternary", "alignment", "answers: trm", "answers: plain",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_release_gives_the_model_and_what_it_was_described_by(name, data: Data, tmp_path):
    folder = tmp_path / "root" / "kind" / "key"
    folder.mkdir(parents=True)
    if name.startswith("narrator"):
        for kind in ("weather_mae", "weather_language"):
            part = only(data.weather, kind).folder
            shutil.copytree(part, folder.parent.parent / kind / part.name)
    if name.startswith("vlm"):
        part = only(data.vlm, "microvlm_language").folder
        shutil.copytree(part, folder.parent.parent / "microvlm_language" / part.name)
    if name == "captions":
        shutil.copytree(only(data.vlm, "microvlm_language").folder / "tokenizer", folder / "tokenizer")
    if name.startswith(("alignment", "answers")):
        kind = "image_encoder" if name.startswith("alignment") else "answerer"
        made = min(data.answers.assets(kind), key=lambda a: a.key).folder
        shutil.copytree(made / "tokenizer", folder / "tokenizer")
    if name.startswith("language"):
        shutil.copytree(only(data.weather, "weather_language").folder / "tokenizer", folder / "tokenizer")
    objective = CASES[name].objective(data)
    torch.manual_seed(3)
    model = objective.build()
    left_out = [entry for entry in model.state_dict() if not objective.stored(entry)]
    write_weights(folder / WEIGHTS, model, objective.stored)
    metrics = {"metrics": {"threshold": 0.3}}
    write_config(folder, objective.RELEASE, objective.release_config(), metrics, left_out)

    release = Release.from_release(folder)

    assert type(release) is objective.RELEASE
    assert not release.network.training
    again, before = release.network.state_dict(), model.state_dict()
    assert again.keys() == before.keys()
    assert all(torch.equal(again[entry], before[entry]) for entry in again)
    assert json.loads((folder / CONFIG).read_text())["model"] == json.loads(json.dumps(objective.release_config()))
    if name.startswith("narrator"):
        shutil.rmtree(folder.parent.parent / "weather_mae")
        with pytest.raises(ValueError, match=r"weather_mae/\w+, which kind/key was made from, is gone; make it again"):
            Release.from_release(folder)
