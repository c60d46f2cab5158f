"""Real processes: trainings killed at random steps, several ranks, errors on their way up, parents that die."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from configs.training import TrainingConfig, WandbConfig
from storage.assets import Asset, AssetStore
from tasks.progress import Silent
from tasks.session import Session
from tasks.training.events import emit, parse
from tasks.training.tracking import WandbTracker, run_name
from tests import warm
from tests.conftest import REPOSITORY
from tests.training import toy_stage
from tests.training.gradients import first_step
from tests.training.wandb_files import wandb_records

RATES = {"body": 0.01, "head": 0.02}
KILLED = {
    "epochs": 4,
    "batch_size": 8,
    "accumulation": 2,
    "learning_rates": RATES,
    "history_every": 1,
    "ema_decay": 0.9,
    "freeze": {"head": 1},
    "best": {"metric": "accuracy", "mode": "max"},
}
STEPS = 24


def start(
    root: Path, training: dict[str, Any], pause: float = 0.0, cold: bool = False, **execution: Any
) -> warm.Process:
    """Start the stage in a process of its own; cold: its training as outside of tests."""
    where = {"device": "cpu", "threads": 1, "checkpoint_steps": 3, "wandb": {"mode": "disabled"}} | execution
    environment = {"TOY_EXECUTION": json.dumps(where), "TOY_PAUSE": str(pause)}
    environment |= {warm.COLD_TRAININGS: "1"} if cold else {}
    return warm.start("tests.training.toy_stage", str(root), json.dumps(training), **environment)


def finish(process: warm.Process) -> tuple[str, Asset]:
    """Wait for the stage; return its label and its asset."""
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    label, folder = output.rsplit(maxsplit=1)
    return label, Asset(Path(folder))


def content(asset: Asset) -> dict[str, bytes]:
    """Return every file but the manifest, which holds times."""
    paths = [p for p in asset.folder.rglob("*") if p.is_file() and p.name != "manifest.json"]
    return {str(p.relative_to(asset.folder)): p.read_bytes() for p in paths}


def steps_done(root: Path) -> int:
    """Return the steps in the history of the training that runs below a root."""
    path = next(root.glob("toy_training/*.partial/.scratch/history.jsonl"), None)
    return path.read_text().count('"training"') if path else 0


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, seconds: float = 400.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


@pytest.mark.long
def test_a_killed_stage_takes_its_training_along_and_resumes_bit_identical(tmp_path):
    _, calm = finish(start(tmp_path / "calm", KILLED))
    root = tmp_path / "killed"
    process = start(root, KILLED, pause=0.02, cold=True, loader_workers=2)
    wait_for(lambda: steps_done(root) >= 7)
    descendants = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)  # the stage alone: its children must follow
    process.communicate()
    wait_for(lambda: not any(alive(p) for p in descendants))
    assert len(descendants) >= 1 + 2
    ends_as(calm, root)


@pytest.mark.long
def test_ranks_show_pictures_and_end_with_torchrun_and_with_each_other_and_resume_bit_identical(tmp_path, train_here):
    calm, listener = train_here(execution={"ranks": 2}, **KILLED)
    assert [name for _, name, _ in listener.pictures] == ["square"] * 4 + ["curves"], "one of the ranks shows"
    root = tmp_path / "killed"

    def killed(which: Callable[[psutil.Process, list[psutil.Process]], psutil.Process], after: int) -> str:
        process = start(root, KILLED, pause=0.02, ranks=2)
        wait_for(lambda: steps_done(root) >= after)
        (launcher,) = psutil.Process(process.pid).children()
        ranks = launcher.children(recursive=True)
        assert len(ranks) == 2
        which(launcher, ranks).kill()
        _, errors = process.communicate()
        wait_for(lambda: not any(alive(p) for p in ranks))
        return errors.strip().splitlines()[-1]

    assert killed(lambda launcher, ranks: ranks[1], after=7) == (
        "ChildProcessError: the training process was killed by signal 9, perhaps for want of memory; its last "
        "checkpoint is kept: run again to go on from there"
    )
    (log,) = root.glob("toy_training/*.partial/.scratch/log.txt")
    assert log.read_text() == ""
    assert "the training process was killed by signal 9" in killed(lambda launcher, ranks: launcher, after=14)
    ends_as(calm, root, ranks=2)


def test_what_is_no_number_is_told_as_undefined(capsys):
    emit("message", text="epoch 1/2: growth_f1 nan, loss 0.5")
    assert parse(capsys.readouterr().out) == {"event": "message", "text": "epoch 1/2: growth_f1 undefined, loss 0.5"}


def ends_as(calm: Asset, root: Path, **execution: Any) -> None:
    """Let a killed training go on and compare what comes out."""
    assert 0 < steps_done(root) < STEPS
    label, killed = finish(start(root, KILLED, **execution))
    assert label.startswith("RESUME")
    assert content(calm).keys() == {"model.safetensors", "config.json", "history.json"}
    assert content(killed) == content(calm)
    assert len(json.loads(content(calm)["history.json"])["training"]) == STEPS


@pytest.mark.long
def test_gradients_of_two_ranks_are_those_of_one(tmp_path):
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tests.training.gradients"]
    subprocess.run([sys.executable, "-m", *command, str(tmp_path / "two.safetensors")], cwd=REPOSITORY, check=True)
    from tasks.training.share import Share

    for accumulation in (1, 4):
        first_step(tmp_path / f"one-{accumulation}.safetensors", Share(), accumulation)
    two = load_file(tmp_path / "two.safetensors")
    for accumulation in (1, 4):
        for name, gradient in load_file(tmp_path / f"one-{accumulation}.safetensors").items():
            torch.testing.assert_close(two[name], gradient, rtol=1e-5, atol=1e-8)
    rows = [json.loads((tmp_path / name / "history.jsonl").read_text()) for name in ("two", "one-1")]
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=1e-6)


class Listener(Silent):
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.steps: list[tuple[int, int]] = []
        self.pictures: list[tuple[str, str, bytes]] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def progress(self, stage: str, done: int, total: int, words: str = "") -> None:
        self.steps.append((done, total))

    def picture(self, stage: str, name: str, png: bytes) -> None:
        self.pictures.append((stage, name, png))


@pytest.fixture
def train_here(tmp_path, monkeypatch):
    """Run the toy stage in this process (its training is a child all the same) and return asset and listener."""

    def run(objective: dict[str, Any] | None = None, execution: dict[str, Any] | None = None, **training: Any):
        where = {"device": "cpu", "threads": 1, "wandb": {"mode": "disabled"}} | (execution or {})
        monkeypatch.setenv("TOY_EXECUTION", json.dumps(where))
        listener = Listener()
        session = Session(AssetStore(tmp_path / "assets"), listener)
        values = {"epochs": 2, "batch_size": 8, "learning_rates": RATES} | training
        with session.active():
            asset = toy_stage.toy_training(objective=objective or {}, training=TrainingConfig.model_validate(values))
        return asset, listener

    return run


def test_the_stage_reports_progress_and_facts_and_logs_to_wandb_offline(tmp_path, train_here):
    names = {"mode": "offline", "project": "toys", "tags": ["toy", "test"], "group": "tests"}
    names["name"] = "run_{counter}_{stage}_{time}"
    asset, listener = train_here(execution={"wandb": names})
    assert listener.steps[-1] == (12, 12)
    assert any(text.startswith("epoch 2/2: accuracy") for text in listener.messages)
    manifest = asset.manifest
    assert manifest.counts["steps"] == 12
    assert manifest.counts["parameters_trained"] == 49
    assert {"accuracy", "loss", "samples_per_second"} <= manifest.metrics.keys()
    folder = next((tmp_path / "assets" / ".wandb" / "wandb").glob("offline-run-*"))
    assert folder.name.endswith(asset.key)
    records = wandb_records(next(folder.glob("*.wandb")))
    run = next(r.run for r in records if r.WhichOneof("record_type") == "run")
    assert (run.project, run.run_group, list(run.tags)) == ("toys", "tests", ["toy", "test"])
    assert re.fullmatch(r"run_1_toy_training_20\d{6}_\d{6}", run.display_name)
    rows = [
        {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in r.history.item}
        for r in records
        if r.WhichOneof("record_type") == "history"
    ]
    history = json.loads((asset.folder / "history.json").read_text())
    assert [row["val/accuracy"] for row in rows if "val/accuracy" in row] == [
        row["accuracy"] for row in history["evaluation"]
    ]
    assert [row["train/loss"] for row in rows if "train/loss" in row] == [row["loss"] for row in history["training"]]
    assert all(row["model/memory_gb"] > 0.01 for row in rows if "train/loss" in row)
    assert [row["biases/largest"] >= 0 for row in rows if "val/accuracy" in row] == [True, True]
    summary = {
        u.key: u.value_json for r in records if r.WhichOneof("record_type") == "summary" for u in r.summary.update
    }
    assert (summary["model/total_params"], summary["model/trainable_params"]) == ("49", "49")
    assert any("preview/square" in row or "preview/square/_type" in row for row in rows)
    metrics = {
        r.metric.name or r.metric.glob_name: r.metric for r in records if r.WhichOneof("record_type") == "metric"
    }
    assert metrics["val/*"].step_metric == metrics["train/*"].step_metric == metrics["biases/*"].step_metric == "step"
    kinds = [r.request.log_artifact.artifact.type for r in records if r.request.HasField("log_artifact")]
    artifacts = [r.artifact.type for r in records if r.WhichOneof("record_type") == "artifact"]
    assert "model" in kinds + artifacts


def test_a_counted_name_stays_with_its_training_and_goes_on_with_the_next(tmp_path):
    template = "run_{counter}_{stage}_{time}"
    first = run_name(template, tmp_path, "microvlm_model stage1", "a" * 24)
    assert first.startswith("run_1_stage1_")
    assert run_name(template, tmp_path, "microvlm_model stage2", "b" * 24).startswith("run_2_stage2_")
    assert run_name(template, tmp_path, "microvlm_model stage1", "a" * 24) == first
    assert run_name(None, tmp_path, "toy", "c" * 24) == "toy-cccccccc"
    with pytest.raises(ValueError, match=r"may hold \{stage\}, \{counter\} and \{time\}"):
        WandbConfig(name="run_{number}")


def test_a_picture_that_wandb_cannot_take_ends_the_logging_and_nothing_else():
    told: list[str] = []
    ended = SimpleNamespace(finish=lambda **how: told.append("finished"))
    tracker = WandbTracker(ended, "toy", told.append)
    tracker.evaluation({"step": 1, "epoch": 1}, {"broken": b"no picture"})
    assert told[0].startswith("W&B: ")
    assert told[0].endswith("the training goes on without it")
    assert told[1:] == ["finished"]
    tracker.training({"loss": 1.0, "gradient_norm": 1.0, "terms": {}, "learning_rates": {}, "step": 2, "epoch": 1})
    assert len(told) == 2, "nothing is logged any more, and nothing told again"


def test_pictures_are_shown_while_it_trains_and_none_is_in_the_asset(train_here):
    asset, listener = train_here()
    assert [name for _, name, _ in listener.pictures] == ["square", "square", "curves"]
    assert {stage for stage, _, _ in listener.pictures} == {"toy_training"}
    assert all(png.startswith(b"\x89PNG") for _, _, png in listener.pictures)
    assert {file.path for file in asset.manifest.files} == {"model.safetensors", "config.json", "history.json"}


def test_wandb_without_a_way_to_its_server_does_not_end_a_training(train_here, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "3")
    asset, listener = train_here(execution={"wandb": {"mode": "online"}}, epochs=1)
    assert [text for text in listener.messages if text.startswith("W&B: ") and "the training goes on" in text]
    assert asset.manifest.counts["steps"] == 6


@pytest.mark.long
def test_a_value_error_of_the_child_arrives_as_one(train_here, monkeypatch):
    monkeypatch.setenv("TOY_BAD_SAMPLE", "5")
    with pytest.raises(ValueError, match=r"^training stopped at step .* for the training samples .*5") as error:
        train_here(execution={"ranks": 2})
    assert "Traceback" not in str(error.value)


def test_another_error_of_the_child_shows_where_it_happened(train_here):
    with pytest.raises(ChildProcessError, match=r"(?s)Traceback.*toy\.py.*TypeError"):
        train_here({"width": "many"})
