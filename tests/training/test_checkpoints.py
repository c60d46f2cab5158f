"""Checkpoints and releases: interrupted trainings, damaged files, what is kept and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from storage.checkpoints import load_weights, save_weights
from tasks.training.loop import Trainer
from tasks.training.objective import make_objective
from tasks.training.optimiser import Parameters
from tasks.training.publish import publish
from tests.training.toy import Toy, ToyRelease
from tests.training.trainers import config, trainer

# -- checkpoints ---------------------------------------------------------------------------------------------------

LONG = {
    "epochs": 4,
    "history_every": 4,
    "accumulation": 2,
    "ema_decay": 0.9,
    "best": {"metric": "accuracy", "mode": "max"},
    "freeze": {"head": 1},
}


def finish(folder: Path, **execution: Any) -> tuple[dict[str, bytes], Trainer]:
    """Train to the end and return the published bytes."""
    one = trainer(folder / "scratch", execution=execution, **LONG)
    one.fit()
    publish(one, folder)
    return {path.name: path.read_bytes() for path in folder.glob("*.*")}, one


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> dict[str, bytes]:
    """The files of an undisturbed training."""
    return finish(tmp_path_factory.mktemp("calm"))[0]


def interrupt(folder: Path, steps: int, **execution: Any) -> None:
    """Train a number of steps and stop without a word, as a kill does."""

    class Kill(BaseException):
        pass

    one = trainer(folder / "scratch", execution=execution, **LONG)

    def count(step: int, total: int, loss: float) -> None:
        if step == steps:
            raise Kill

    one._on_step = count
    with pytest.raises(Kill):
        one.fit()


def test_interrupted_anywhere_it_ends_with_the_same_bytes(tmp_path, calm):
    for every, steps in ((5, [3, 9, 14, 22]), (1, [1, 2, 24]), (None, [5, 23])):
        folder = tmp_path / f"every-{every}"
        for step in steps:
            interrupt(folder, step, checkpoint_steps=every)
        disturbed, one = finish(folder)
        assert "continues after step" in one.said[0] or steps[0] < 6
        assert disturbed == calm


def test_only_the_last_checkpoints_and_their_best_weights_are_kept(tmp_path):
    interrupt(tmp_path, 23, checkpoint_steps=2, keep_last=3)
    kept = sorted(path.name for path in (tmp_path / "scratch" / "checkpoints").iterdir())
    assert kept == ["step-00000018", "step-00000020", "step-00000022"]
    facts = [json.loads((tmp_path / "scratch" / "checkpoints" / k / "checkpoint.json").read_text()) for k in kept]
    needed = {f"step-{f['facts']['cursor']['best']['step']:08d}.safetensors" for f in facts}
    assert {path.name for path in (tmp_path / "scratch" / "best").iterdir()} == needed


@pytest.mark.parametrize("damage", ["cut", "flipped", "without facts", "half-written"])
def test_a_damaged_checkpoint_is_passed_over_with_a_message(tmp_path, damage, calm):
    interrupt(tmp_path / "killed", 11, checkpoint_steps=5)
    newest = tmp_path / "killed" / "scratch" / "checkpoints" / "step-00000010"
    weights = next(newest.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    if damage == "cut":
        weights.write_bytes(content[:-40])
    elif damage == "flipped":
        content[-9] ^= 1
        weights.write_bytes(content)
    elif damage == "without facts":
        (newest / "checkpoint.json").unlink()
    else:
        newest.rename(newest.with_name(".step-00000010.partial"))
    disturbed, one = finish(tmp_path / "killed")
    if damage != "half-written":
        assert "checkpoint step-00000010 is damaged" in one.said.pop(0)
    assert one.said[0] == "continues after step 6 of 24"
    assert disturbed == calm


def test_checkpoints_hold_no_pickle(tmp_path):
    interrupt(tmp_path, 7, checkpoint_steps=5)
    files = {path.suffix for path in (tmp_path / "scratch").rglob("*") if path.is_file()}
    assert files == {".safetensors", ".json", ".jsonl"}


def test_the_state_of_ranks_cannot_be_given_to_another_number_of_them(tmp_path, monkeypatch):
    interrupt(tmp_path, 7, checkpoint_steps=5)
    facts = next((tmp_path / "scratch" / "checkpoints").glob("*6/checkpoint.json"))
    facts.write_text(facts.read_text().replace('"ranks":1', '"ranks":4'))
    with pytest.raises(ValueError, match=r"set execution\.ranks to 4 to continue it"):
        trainer(tmp_path / "scratch", **LONG).fit()


# -- releases ------------------------------------------------------------------------------------------------------


@pytest.fixture
def families(monkeypatch):
    """Let releases name the families of tests."""
    monkeypatch.setattr("tasks.training.release.FAMILIES", ("tests",))


@pytest.mark.usefixtures("families")
def test_a_release_builds_the_same_model_again(tmp_path):
    one = trainer(tmp_path / "scratch", Toy({"width": 5}))
    one.fit()
    publish(one, tmp_path)
    release = ToyRelease.from_release(tmp_path)
    assert release.width == 5
    assert not release.network.training
    x = torch.randn(3, 4)
    torch.testing.assert_close(release.network(x), one.model.eval()(x))

    class Other(ToyRelease):
        pass

    with pytest.raises(ValueError, match="is a ToyRelease, and a Other is needed"):
        Other.from_release(tmp_path)
    with pytest.raises(ValueError, match=r"no released model: it has no config\.json"):
        ToyRelease.from_release(tmp_path / "scratch")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model": {"width": 6}}))
    with pytest.raises(ValueError, match=r"does not fit the model: it has in another shape 0\.bias"):
        ToyRelease.from_release(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"release": "json:JSONDecoder"}))
    with pytest.raises(ValueError, match="does not say of what family the model is; train it again"):
        ToyRelease.from_release(tmp_path)


def test_weights_that_a_model_has_and_a_file_lacks_are_named(tmp_path):
    save_weights(tmp_path / "w.safetensors", {"0.weight": torch.zeros(1, 1), "0.bias": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"it lacks 1\.weight, 1\.bias"):
        load_weights(tmp_path / "w.safetensors", nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)))


class FrozenRelease(ToyRelease):
    @classmethod
    def restore(cls, model, weights, folder):
        release = super().restore(model, weights, folder)
        nn.init.constant_(release.network[0].weight, 0.25)
        return release


@pytest.mark.usefixtures("families")
def test_what_the_objective_rebuilds_is_neither_in_checkpoints_nor_in_the_release(tmp_path):
    class Frozen(Toy):
        RELEASE = FrozenRelease

        def build(self):
            model = super().build()
            model[0].requires_grad_(False)
            nn.init.constant_(model[0].weight, 0.25)
            return model

        def groups(self, model):
            return {"head": list(model[3].parameters())}

        def stored(self, name):
            return not name.startswith("0.")

    one = trainer(tmp_path / "scratch", Frozen({}), learning_rates={"head": 0.1})
    one.fit()
    publish(one, tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == {"3.weight", "3.bias"}
    names = [n for p in (tmp_path / "scratch" / "checkpoints").rglob("*.safetensors") for n in load_file(p)]
    assert names
    assert not [name for name in names if name.startswith(("model.0.", "optimiser.0."))]
    assert json.loads((tmp_path / "config.json").read_text())["left_out"] == ["0.bias", "0.weight"]
    model = FrozenRelease.from_release(tmp_path).network
    assert (model[0].weight == 0.25).all()
    torch.testing.assert_close(model[3].weight, one.model[3].weight)


def test_tied_weights_are_written_once_and_come_back_tied(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight

    source, target = Tied(), Tied()
    save_weights(tmp_path / "w.safetensors", source.state_dict())
    assert load_file(tmp_path / "w.safetensors").keys() == {"a.weight", "a.bias", "b.bias"}
    load_weights(tmp_path / "w.safetensors", target)
    assert target.b.weight is target.a.weight
    assert torch.equal(target.b.weight, source.a.weight)


def test_an_objective_is_found_by_its_import_path():
    assert isinstance(make_objective("tests.training.toy:Toy", {"width": 3}), Toy)


def test_parameters_that_never_train_are_in_no_group():
    objective = Toy({})
    model = objective.build()
    model[0].bias.requires_grad_(False)
    with pytest.raises(AssertionError, match=r"without requires_grad: 0\.bias"):
        Parameters(objective, model, config())
