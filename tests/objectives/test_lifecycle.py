"""From the first step to a release: every objective trains, survives a kill, is evaluated and released; bf16 too."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from configs.training import Execution, TrainingConfig
from tasks.training.loop import Trainer
from tasks.training.publish import publish
from tasks.training.share import Share
from tests.objectives.cases import CASES, Data

BY_MUON = "answers: trm, halting, concatenated, muon"
ON_CPU = {
    "fp32": ("fire: front", "mae", "language: hrm_act", "narrator: 4 bits", "answers: trm", BY_MUON),
    "bf16": ("mae",),
}
"""One of every kind; their pipelines' tests train the others, in processes of their own."""
STEPS = 4


class Killed(BaseException):
    """Ends a training as a kill does: nothing runs any more."""


def train(name: str, data: Data, folder: Path, share: Share, killed_at: int = 0, **changes: Any) -> dict[str, Any]:
    """Train to the end, or to a kill; return the released weights."""
    case = CASES[name]
    settings: TrainingConfig = case.settings(epochs=2, steps_per_epoch=STEPS // 2, history_every=3, **changes)

    def count(step: int, steps: int, loss: float | None) -> None:
        if step == killed_at:
            raise Killed

    execution = Execution(device=share.device.type, checkpoint_steps=1)
    one = Trainer(case.objective(data), settings, execution, share, folder / "scratch", on_step=count)
    if killed_at:
        with pytest.raises(Killed):
            one.fit()
        return {}
    one.fit()
    facts = publish(one, folder)
    assert facts["counts"]["steps"] == STEPS
    assert all(math.isfinite(value) for value in facts["metrics"].values())
    rows = json.loads((folder / "history.json").read_text())
    assert [row["step"] for row in rows["training"]] == [3, 4]
    assert [row["step"] for row in rows["evaluation"]] == [2, 4]
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", CASES)
def test_a_killed_training_ends_where_an_undisturbed_one_does(name, precision, data, device, tmp_path, monkeypatch):
    if device.type == "cpu" and name not in ON_CPU[precision]:
        pytest.skip("trained by the pipelines' tests")
    monkeypatch.setattr("tasks.training.live.curves", lambda history, say: {})
    share = Share(device=device)
    calm = train(name, data, tmp_path / "calm", share, precision=precision)
    for step in (1, 3):
        train(name, data, tmp_path / "killed", share, killed_at=step, precision=precision)
    killed = train(name, data, tmp_path / "killed", share, precision=precision)
    assert killed.keys() == calm.keys()
    for n, weight in calm.items():
        if device.type == "cpu":
            assert torch.equal(killed[n], weight), n
        else:  # a GPU adds up in no fixed order
            torch.testing.assert_close(killed[n], weight, rtol=0.05, atol=0.02)


def test_what_is_thawed_has_its_dropout_from_the_first_step_on_and_after_a_kill(data, tmp_path):
    """Frozen parts of language models have none; when a training last changed modes must make no difference."""
    case = CASES["narrator: last block"]
    rates = {"adapter": 1e-3, "language": 1e-3}
    settings = case.settings(epochs=2, steps_per_epoch=2, learning_rates=rates, freeze={"language": 1})

    def fit(killed_at: int, folder: Path, found: dict[int, bool]) -> None:
        def count(step: int, steps: int, loss: float | None) -> None:
            found[step] = one.model.language.hf.model.layers[-1].training
            if step == killed_at:
                raise Killed

        one = Trainer(
            case.objective(data), settings, Execution(checkpoint_steps=1), Share(), folder / "scratch", on_step=count
        )
        with pytest.raises(Killed) if killed_at else contextlib.nullcontext():
            one.fit()

    def modes(*kills: int) -> list[bool]:
        found: dict[int, bool] = {}
        for killed_at in (*kills, 0):
            fit(killed_at, tmp_path / "".join(map(str, kills)), found)
        return list(found.values())

    assert modes() == modes(2) == modes(3) == [False, False, True, True]


@pytest.mark.long
@pytest.mark.parametrize("name", ["fire: front", "mae"])
def test_a_compiled_training_takes_the_same_steps_to_rounding(name, data, device, tmp_path):
    if (device.type, name) == ("cpu", "mae"):
        pytest.skip("compiling it takes a quarter of an hour there")
    losses = []
    for compiled in (False, True):
        execution = Execution(device=device.type, compile=compiled)
        case, folder = CASES[name], tmp_path / str(compiled)
        one = Trainer(
            case.objective(data), case.settings(epochs=3, history_every=1), execution, Share(device=device), folder
        )
        one.model.train()
        for micro_batches in one.batches(0, 3):
            one.step(micro_batches)
        losses.append([row["loss"] for row in one.history.rows("training")])
        assert one.machines[0].get("compiled") == ("yes" if compiled else None)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
