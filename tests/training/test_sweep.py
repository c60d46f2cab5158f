"""Sweeps: one file for `wandb agent` and for Optuna, resumable, with the parameters that the pipeline has."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.load import load_config, profile_path
from configs.wildfire import WildfireConfig
from flows.commands.sweep import Target
from flows.pipelines import find_pipeline
from storage.hashing import digest
from tasks.code import Code, Facts
from tasks.training.sweep import (
    as_overrides,
    best_parameters,
    phases,
    read_sweep,
    run_study,
    sweep_overrides,
)
from tests import warm
from tests.conftest import REPOSITORY
from tests.fire.archives import some_fires, write_archive
from tests.training.wandb_files import wandb_records
from tests.training.wandb_server import SweepServer

EMBERFORMER = REPOSITORY / "configs" / "sweeps" / "emberformer.yaml"
PHASES = ["1_architecture", "2_learning_rates", "3_regularisation", "4_data"]
KEYS = {"name", "program", "command", "metric", "method", "run_cap", "early_terminate", "parameters"}
"""What W&B documents for the top of a sweep file, so far as these use it; it refuses others."""


def write(path: Path, method: str, parameters: str, **rest: Any) -> Path:
    content = {"method": method, "metric": {"name": "val/f1", "goal": "maximize"}, **rest}
    path.write_text(yaml.safe_dump(content) + f"parameters: {parameters}\n")
    return path


@pytest.mark.parametrize("phase", [None, *PHASES])
def test_the_sweeps_are_valid_for_wandb_and_their_parameters_for_the_pipeline(phase):
    from wandb.apis.public.sweeps import _validate_config_and_fill_distribution
    from wandb.sdk.launch.sweeps.utils import load_sweep_config

    assert phases(EMBERFORMER) == PHASES
    sweep = read_sweep(EMBERFORMER, phase)
    content = json.loads(json.dumps(sweep.content))
    assert content.keys() <= KEYS
    path = EMBERFORMER if phase is None else EMBERFORMER.with_suffix("") / f"{phase}.yaml"
    assert load_sweep_config(str(path)) == content
    assert _validate_config_and_fill_distribution(content)["parameters"].keys() == content["parameters"].keys()
    command = [word for word in content["command"] if word != "${env}"]
    assert command[:3] == ["millrace", "run", "wildfire"]
    profile = profile_path("wildfire", command[command.index("--profile") + 1])
    for name, entry in sweep.space.items():
        for value in entry.get("values") or [entry["min"], entry["max"]]:
            overrides = as_overrides({**sweep.fixed, name: value})
            values = load_config(WildfireConfig, profile, overrides).model_dump()
            for part in name.split("."):
                values = values[part]
            assert values == value


def test_the_phases_are_those_of_the_plan():
    methods = [(s.method, s.run_cap) for s in (read_sweep(EMBERFORMER, phase) for phase in PHASES)]
    assert [method for method, _ in methods] == ["bayes", "grid", "random", "grid"]
    assert 30 <= methods[0][1] <= 50
    sizes = [math.prod(len(e["values"]) for e in read_sweep(EMBERFORMER, PHASES[k]).space.values()) for k in (1, 3)]
    assert sizes == [18, 12]
    searched = {name for phase in PHASES for name in read_sweep(EMBERFORMER, phase).space}
    assert read_sweep(EMBERFORMER).space.keys() <= searched | {"models.emberformer.training.batch_size"}


def test_faults_of_a_sweep_file_are_one_sentence(tmp_path):
    path = tmp_path / "s.yaml"
    for method, parameters, words in (
        ("bayes", "{lr: {distribution: log_uniform_values, min: 1e-4, max: 0.1}}", r"reads 1e-4 as text.*1\.0e-4"),
        ("grid", "{lr: {min: 0.1, max: 1.0}}", "a grid needs `values` for lr"),
        ("bayes", "{lr: {distribution: beta, min: 0.1, max: 1.0}}", "distribution 'beta' is not supported"),
        ("simplex", "{lr: {values: [1]}}", "method 'simplex' is not known"),
        ("bayes", "{n: {distribution: int_uniform, min: 0, max: 0.3}}", "n: int_uniform .* not 0 and 0.3; write `dist"),
        ("bayes", "{n: {min: false, max: true}}", "n: a range goes from a number to a number, not False"),
        ("bayes", "{model: {parameters: {lr: {values: [1]}}}}", "is no sweep"),
    ):
        write(path, method, parameters)
        with pytest.raises(ValueError, match=rf"s\.yaml.*{words}"):
            read_sweep(path)
    write(path, "grid", "{lr: {values: [1]}}", metric={"name": "val/nll"})
    with pytest.raises(
        ValueError, match=r"s\.yaml: metric\.goal is missing; write `goal: maximize` where a larger val/nll"
    ):
        read_sweep(path)
    with pytest.raises(ValueError, match="has no phase 'nothing'; it has 1_architecture"):
        read_sweep(EMBERFORMER, "nothing")
    with pytest.raises(ValueError, match="there is no file"):
        read_sweep(tmp_path / "other.yaml")
    with pytest.raises(ValueError, match="has no end of its own"):
        run_study(
            read_sweep(write(path, "random", "{lr: {min: 0.1, max: 1.0}}")), lambda p: {"f1": 0.0}, tmp_path / "d"
        )


def test_a_grid_tries_every_combination_once_and_goes_on_where_it_was(tmp_path):
    path = write(
        tmp_path / "s.yaml", "grid", "{a.b: {values: [1, 2, 3]}, wind: {values: [true, false]}, c: {value: x}}"
    )
    sweep, tried = read_sweep(path), []

    def trial(parameters):
        tried.append(parameters)
        if parameters["a.b"] == 2 and parameters["wind"]:
            raise ValueError("two and wind do not go together")
        return {"f1": parameters["a.b"] + 0.5 * parameters["wind"], "other": 1.0}

    run_study(sweep, trial, tmp_path / "study.db", trials=2)
    said: list[str] = []
    result = run_study(sweep, trial, tmp_path / "study.db", fixed={}, say=said.append)
    combinations = [(p["a.b"], p["wind"]) for p in tried]
    assert sorted(combinations) == sorted(itertools.product([1, 2, 3], [True, False]))
    assert all(p["c"] == "x" for p in tried)
    assert (result.value, result.finished, result.failed) == (3.5, 6, 1)
    assert result.parameters == {"a.b": 3, "wind": True, "c": "x"}
    assert any("is refused: two and wind do not go together" in text for text in said)
    assert best_parameters(sweep, tmp_path / "study.db") == {"a.b": 3, "wind": True}
    with pytest.raises(ValueError, match="with other fixed parameters"):
        run_study(sweep, trial, tmp_path / "study.db", fixed={"d": 1})


@pytest.mark.parametrize("method", ["bayes", "random"])
def test_a_search_stays_in_its_space_and_finds_what_is_good(tmp_path, method):
    space = "{lr: {distribution: log_uniform_values, min: 1.0e-4, max: 1.0}, n: {min: 1, max: 9}, k: {values: [a, b]}}"
    sweep, tried = read_sweep(write(tmp_path / "s.yaml", method, space, run_cap=25)), []

    def trial(parameters):
        tried.append(parameters)
        return {"f1": -abs(math.log10(parameters["lr"]) + 2) + (parameters["k"] == "b")}

    result = run_study(sweep, trial, tmp_path / "study.db", fixed={"batch": 8})
    assert len(tried) == 25
    assert all(1e-4 <= p["lr"] <= 1 and p["n"] in range(1, 10) and p["batch"] == 8 for p in tried)
    assert result.value > 0.3
    assert result.parameters["k"] == "b"


@pytest.mark.parametrize(("low", "high", "whole"), [("0", "0.3", False), ("0.0", "1", False), ("0", "3", True)])
def test_a_range_is_of_whole_numbers_where_both_its_bounds_are(tmp_path, low, high, whole):
    sweep = read_sweep(write(tmp_path / "s.yaml", "random", f"{{x: {{min: {low}, max: {high}}}}}", run_cap=6))
    drawn = {trial.parameters["x"] for trial in run_study(sweep, lambda p: {"f1": 0.0}, tmp_path / "study.db").trials}
    assert all(isinstance(x, int) == whole for x in drawn)
    assert whole or len(drawn) == 6


@pytest.mark.parametrize("method", ["bayes", "random"])
def test_a_search_draws_the_same_again_also_when_it_was_interrupted(tmp_path, method):
    space = "{lr: {distribution: log_uniform_values, min: 1.0e-4, max: 1.0}, k: {values: [a, b]}}"
    sweep = read_sweep(write(tmp_path / "s.yaml", method, space, run_cap=14))

    def drawn(name: str, *limits: int) -> list[Any]:
        for limit in limits:
            result = run_study(sweep, lambda p: {"f1": p["lr"]}, tmp_path / name, limit)
        return [trial.parameters for trial in result.trials]

    calm = drawn("calm", 14)
    assert drawn("interrupted", 3, 12, 14) == calm
    assert len({p["lr"] for p in calm}) == 14


@pytest.mark.parametrize("method", ["grid", "bayes", "random"])
def test_what_changes_nothing_is_not_searched(tmp_path, method):
    space = "{kind: {values: [plain, pretrained]}, rate: {values: [1, 2, 3]}, n: {values: [5, 6]}}"
    sweep = read_sweep(write(tmp_path / "s.yaml", method, space, run_cap=20))

    def idle(parameters):
        return {"rate"} if parameters.get("kind") == "plain" else set()

    result = run_study(sweep, lambda p: {"f1": float("rate" not in p)}, tmp_path / "study.db", idle=idle)
    tried = [tuple(trial.parameters.values()) for trial in result.trials]
    assert {"plain", "pretrained"} == {values[0] for values in tried}
    assert all(len(values) == (2 if values[0] == "plain" else 3) for values in tried)
    assert result.parameters.keys() == {"kind", "n"}
    if method == "grid":
        assert len(tried) == len(set(tried)) == 2 + 6
        again = run_study(sweep, lambda p: {"f1": 0.0}, tmp_path / "study.db", idle=idle)
        assert again.trials == result.trials


def test_another_study_begins_where_data_or_code_are_others(tmp_path):
    sweep = read_sweep(write(tmp_path / "s.yaml", "random", "{lr: {min: 0.0, max: 1.0}}", run_cap=3))
    made_of: dict[str, str] = {"code": "1"}  # the raw files are hashed by the first trial
    tried: list[float] = []
    said: list[str] = []

    def trial(parameters):
        made_of.setdefault("fires", "a")
        tried.append(parameters["lr"])
        return {"f1": parameters["lr"] * (1 if made_of["fires"] == "a" else -1)}

    def search(trials: int | None = None):
        return run_study(sweep, trial, tmp_path / "study.db", trials, say=said.append, made_of=lambda: made_of)

    search(2)
    first = search()
    assert len(tried) == 3, "the same goes on"
    made_of["fires"] = "b"
    with pytest.raises(
        ValueError, match=r"no finished trial of s with data and code as they are now \(older ones: opt"
    ):
        best_parameters(sweep, tmp_path / "study.db", lambda: made_of)
    said.clear()
    second = search()
    assert re.match(r"a new study begins, s-\w+-2: .* made of other fires; .* --study-name s-\w+$", said[0])
    assert tried[3:] == tried[:3], "drawn from the start, so that what is as it was is cached"
    assert second.value == -min(tried)
    assert best_parameters(sweep, tmp_path / "study.db", lambda: made_of) == {"lr": min(tried)}
    made_of["fires"] = "a"
    assert search() == first, "what is as it was once goes on from there"
    assert len(tried) == 6
    del made_of["fires"]  # new files that are not hashed yet
    with pytest.raises(ValueError, match="no finished trial"):
        best_parameters(sweep, tmp_path / "study.db", lambda: made_of)


def test_a_trial_on_changed_data_is_not_counted(tmp_path):
    sweep = read_sweep(write(tmp_path / "s.yaml", "grid", "{n: {values: [1, 2]}}"))
    made_of = {"fires": "a"}

    def trial(parameters):
        made_of["fires"] = "ab"[len(said)]
        return {"f1": 0.0}

    said: list[str] = []
    with pytest.raises(ValueError, match="fires changed while the trials ran, so the last one is not counted"):
        run_study(sweep, trial, tmp_path / "study.db", say=said.append, made_of=lambda: made_of)
    made_of["fires"] = "a"
    said.clear()
    assert run_study(sweep, lambda p: {"f1": 1.0}, tmp_path / "study.db", made_of=lambda: made_of).finished == 2


def test_a_study_of_which_nobody_noted_what_it_is_made_of_is_not_gone_on_with(tmp_path):
    import optuna

    sweep = read_sweep(write(tmp_path / "s.yaml", "grid", "{n: {values: [1]}}"))
    name = f"{sweep.name}-{digest([sweep.method, sweep.metric, sweep.maximise, sweep.space, sweep.fixed])[:8]}"
    old = optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}", study_name=name, direction="maximize")
    old.enqueue_trial({"n": 1})
    old.optimize(lambda trial: float(trial.suggest_categorical("n", [1])), n_trials=1)
    said: list[str] = []
    assert run_study(sweep, lambda p: {"f1": 5.0}, tmp_path / "study.db", say=said.append).value == 5
    assert "nobody noted which" in said[0]


def test_what_trials_are_made_of_is_the_raw_files_and_the_code_up_to_the_training(tmp_path, monkeypatch):
    raw = write_archive(tmp_path / "fires", some_fires(2))
    source = {"source": {"kind": "archive", "path": str(raw.root)}}
    target = Target(find_pipeline("wildfire"), profile_path("wildfire", "tune"), tmp_path / "root", "inline", source)
    sweep = read_sweep(EMBERFORMER)
    before = target.made_of(sweep)
    assert before.keys() == {"fire_archive", "code"}
    assert target.made_of(sweep) == before

    facts = Code._module

    def edited(*modules: str) -> dict[str, str]:
        def other(self: Code, name: str) -> Facts:
            found = facts(self, name)
            return found._replace(digest="other") if name in modules else found

        monkeypatch.setattr(Code, "_module", other)
        return target.made_of(sweep)

    for part in ("tasks.fire.records", "tasks.fire.training", "tasks.fire.objective", "models.fire.resnet_decoder"):
        assert edited(part) == before | {"code": edited(part)["code"]} != before, part
    assert edited("tasks.fire.evaluate") == before
    raw.image(1, 0).write_bytes(b"repaired")
    assert edited() == before | {"fire_archive": edited()["fire_archive"]} != before


@pytest.mark.parametrize(("decoder", "trials"), [("{kind: unet}", 3), ("{kind: segformer, pretrained: a/b}", 18)])
def test_rates_of_a_group_that_is_empty_for_the_decoder_are_not_searched(tmp_path, decoder, trials):
    target = Target(find_pipeline("wildfire"), profile_path("wildfire", "tune"), tmp_path, "inline", {})
    sweep = read_sweep(EMBERFORMER, "2_learning_rates")
    fixed = {"models.emberformer.model.decoder": yaml.safe_load(decoder)}
    result = run_study(sweep, lambda p: {"f1": 0.0}, tmp_path / "study.db", fixed=fixed, idle=target.idle)
    assert result.finished == trials


@pytest.mark.parametrize("method", ["grid", "bayes"])
def test_a_study_killed_in_a_trial_tries_that_one_again(tmp_path, method):
    space = "{a: {values: [1, 2, 3]}, b: {values: [0.5, 0.25]}}"
    path, log = write(tmp_path / "s.yaml", method, space, run_cap=6), tmp_path / "log"
    arguments = ["tests.training.study", str(path), str(tmp_path / "study.db"), str(log)]
    chance = random.Random(3)
    for _ in range(1 if method == "bayes" else 2):
        begun = len(log.read_text().splitlines()) if log.exists() else 0
        process = warm.start(*arguments, "0.3")
        deadline = time.monotonic() + 400
        while not log.exists() or len(log.read_text().splitlines()) <= begun:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
        process.wait()
    done, _ = warm.start(*arguments, "0").communicate()
    assert done.split()[1] == "6"
    lines = log.read_text().splitlines()
    assert len(lines) == 6 + (1 if method == "bayes" else 2), "those that were killed, twice"
    if method == "grid":
        assert len(set(lines)) == 6
        assert done.split()[0] == "3.0"


def test_two_processes_do_not_share_a_study(tmp_path):
    sweep = read_sweep(write(tmp_path / "s.yaml", "grid", "{a: {values: [1]}}"))

    def trial(parameters):
        with pytest.raises(ValueError, match=rf"process {os.getpid()} is at work"):
            run_study(sweep, lambda p: {"f1": 1.0}, tmp_path / "study.db")
        return {"f1": 1.0}

    assert run_study(sweep, trial, tmp_path / "study.db").finished == 1


def test_overrides_survive_yaml():
    values = {"lr": 1e-05, "text": "a: b", "flag": True, "none": None, "n": 3, "list": [1, 2]}
    texts = dict(text.split("=", 1) for text in as_overrides(values))
    assert {name: yaml.safe_load(text) for name, text in texts.items()} == values


def test_outside_an_agent_there_are_no_overrides(monkeypatch):
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    assert sweep_overrides() == []


@pytest.mark.long
def test_wandb_sweep_and_agent_run_the_file(tmp_path):
    """The real command line of W&B, against a server on the loopback interface."""
    best = {"models.emberformer.model.d_model": 64, "models.emberformer.training.learning_rates.temporal": 1e-05}
    with SweepServer([best]).running() as server:
        environment = os.environ | {
            "WANDB_BASE_URL": server.url,
            "WANDB_API_KEY": "0" * 40,
            "WANDB_ENTITY": "me",
            "WANDB_PROJECT": "fires",
            "WANDB_DIR": str(tmp_path),
            "PYTHONPATH": str(REPOSITORY),
        }
        wandb = [sys.executable, "-m", "wandb"]
        pipes: dict[str, Any] = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
        made = subprocess.run([*wandb, "sweep", str(EMBERFORMER)], **pipes, timeout=400, check=True)
        assert "wandb agent me/fires/sweep1" in made.stderr
        assert server.config is not None
        implied = {"models.emberformer.model.dropout": {"min": 0.0, "max": 0.3, "distribution": "uniform"}}
        written = yaml.safe_load(EMBERFORMER.read_text())["parameters"]
        assert yaml.safe_load(server.config)["parameters"] == written | implied
        command = ["${env}", sys.executable, "-m", "tests.training.swept", str(tmp_path)]
        server.config = yaml.safe_dump(yaml.safe_load(server.config) | {"command": command})
        subprocess.run([*wandb, "agent", "me/fires/sweep1"], **pipes, timeout=400, check=True)
    told = json.loads((tmp_path / "run0.json").read_text())
    assert told["WANDB_SWEEP_ID"] == "sweep1"
    overrides = load_config(WildfireConfig, profile_path("wildfire", "tune"), told["overrides"])
    recipe = overrides.models["emberformer"]
    assert recipe.model.d_model == 64
    assert recipe.training.learning_rates["temporal"] == 1e-05
    for folder, value in (("runs", 0.75), ("cached", 0.5)):
        records = wandb_records(next((tmp_path / folder / "wandb").glob("offline-run-*/*.wandb")))
        run = next(r.run for r in records if r.WhichOneof("record_type") == "run")
        assert (run.run_id, run.sweep_id, run.project) == ("run0", "sweep1", "fires")
        items = [item for r in records if r.WhichOneof("record_type") == "history" for item in r.history.item]
        assert [json.loads(i.value_json) for i in items if "val/f1" in (i.key, *i.nested_key)] == [value]
