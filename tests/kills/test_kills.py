"""Kills in short: at some operations of data stages, in the stage's process and in its workers; and what is killed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from flows.pipelines import find_pipeline
from flows.runner import plan
from storage.assets import AssetStore
from tests import warm
from tests.conftest import REPOSITORY
from tests.kills.roots import PROFILES, Calm, faults
from tests.kills.trap import Process
from tests.kills.trials import Place, run_trial, spread
from tests.once import build_once

pytestmark = pytest.mark.skipif(not warm.AVAILABLE, reason="processes cannot be forked warm here")

FEW: dict[tuple[str, str, Process], int] = {
    ("windows", "era5_sample", "main"): 3,
    ("windows", "era5_sample", "worker"): 3,
    ("windows", "era5_catalog", "main"): 3,
    ("windows", "era5_windows", "main"): 3,
    ("windows", "era5_training_set", "main"): 3,
    ("fires", "fire_records", "main"): 4,
    ("fires", "fire_cache", "main"): 4,
    ("fires", "fire_split", "main"): 3,
}
"""Kills of a stage."""
LONG = {("windows", "era5_sample", "worker"), ("fires", "fire_cache", "main")}
FROM_ELSEWHERE = {
    "era5_cds", "era5_arco", "language_report", "pretrained_from_hub", "pretrained_from_files", "language_pruning",
}  # fmt: skip
"""Stages that read the network or what came from it (`test_cds.py` and `test_pull.py` kill downloads), or are run by
verbs alone."""


def calm(factory: pytest.TempPathFactory, name: str) -> Calm:
    """Return an undisturbed run, made once for all test processes."""
    folder = build_once(factory, f"kills-{name}", lambda folder: Calm(name, folder))
    return Calm(name, folder)


@pytest.mark.parametrize(
    ("name", "stage", "process"),
    [pytest.param(*few, marks=[pytest.mark.long] * (few in LONG)) for few in FEW],
)
def test_a_killed_run_ends_as_if_nobody_had_disturbed_it(tmp_path_factory, name, stage, process):
    undisturbed = calm(tmp_path_factory, name)
    place = Place(pipeline=name, stage=stage, engine="inline", process=process)
    _, operations = run_trial(undisturbed, place, at=0)
    trials = [run_trial(undisturbed, place, at)[0] for at in spread(operations)[: FEW[name, stage, process]]]
    assert {trial.at: trial.faults for trial in trials if trial.lost} == {}
    assert all(trial.operation for trial in trials[1:]), "nearly every one of them was killed"


def test_what_a_kill_may_leave_is_noticed(tmp_path_factory, tmp_path):
    undisturbed = calm(tmp_path_factory, "fires")
    asset = undisturbed.stages["fire_split"]
    root = tmp_path / "root"
    undisturbed.copy(root, without=asset)
    assert f"{asset} differs" in faults(root, undisturbed, asset)
    (root / f"{asset}.partial").mkdir(parents=True)
    assert f"{asset}.partial is left over" in faults(root, undisturbed, asset)
    cache = AssetStore(root).assets("fire_cache")[0]
    (cache.folder / ".half").touch()
    assert any(".half does not belong" in fault for fault in faults(root, undisturbed, asset))


def declared_stages() -> set[str]:
    """Return the names of all functions below `tasks` that are decorated with `@stage(...)`."""
    trees = [ast.parse(path.read_text()) for path in Path(REPOSITORY, "tasks").rglob("*.py")]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {f.name for f in functions for d in f.decorator_list if ast.unparse(d).startswith("stage(")}


def test_every_stage_of_every_pipeline_is_killed(tmp_path):
    found = set()
    for pipeline, settings in PROFILES.values():
        config = find_pipeline(pipeline).config.model_validate(settings)
        found |= {outcome.stage.split()[0] for outcome in plan(find_pipeline(pipeline), config, tmp_path / pipeline)}
    assert found == declared_stages() - FROM_ELSEWHERE


def test_kills_are_spread_over_all_operations():
    for count in (1, 5, 100):
        assert sorted(spread(count)) == list(range(1, count + 1))
    assert spread(8) == [8, 4, 2, 6, 1, 5, 3, 7]
