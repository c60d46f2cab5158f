"""The rules of the house: which way imports run, and who may know Prefect."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tasks.code import INFRASTRUCTURE, Code
from tests.conftest import REPOSITORY

ALLOWED = {
    "flows": {"flows", "tasks", "models", "storage", "configs"},
    "tasks": {"tasks", "models", "storage", "configs"},
    "models": {"models", "configs"},
    "storage": {"storage", "configs"},
    "configs": {"configs"},
}
MAY_KNOW_PREFECT = ("flows/", "tasks/stage.py")
NEVER = {"pickle", "cloudpickle", "dill", "torchvision", "timm"}


def modules() -> list[Path]:
    return sorted(path for package in ALLOWED for path in (REPOSITORY / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return every absolute module that a file imports, wherever the statement stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import; the entry points of deployments need absolute ones"
            found.add(node.module or "")
    return {name.split(".")[0] for name in found}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_imports_run_one_way(path):
    place = str(path.relative_to(REPOSITORY))
    package = place.split("/")[0]
    found = imports(path)
    assert not (found & ALLOWED.keys()) - ALLOWED[package]
    assert not found & NEVER
    if "prefect" in found:
        assert place.startswith(MAY_KNOW_PREFECT)


def test_infrastructure_list_names_modules_that_exist():
    assert all(find_spec(name) for name in INFRASTRUCTURE)


def test_every_part_of_ingest_is_in_its_code_digest():
    reached = Code().reached("tasks.era5.ingest").keys()
    assert {"tasks.era5.block", "tasks.era5.planes", "storage.window_store", "storage.shards"} <= reached


def test_what_shapes_weights_is_in_the_code_digest_of_a_training_and_logging_is_not():
    reached = Code().reached("tasks.fire.training").keys()
    shaping = {"worker", "loop", "loader", "optimiser", "schedule", "objective", "share", "release", "publish"}
    assert {f"tasks.training.{name}" for name in shaping} <= reached
    assert {"models.fire.emberformer", "tasks.fire.objective", "tasks.fire.dataset"} <= reached
    assert not reached & {f"tasks.training.{name}" for name in ("events", "torchrun", "tracking", "sweep")}


DRAWING = ("tasks/figures.py", "tasks/fire/palette.py", "tasks/fire/figures_maps.py", "tasks/fire/previews.py",
           "tasks/mae/pictures.py", "tasks/mae/previews.py", "tasks/narration/pictures.py",
           "tasks/narration/previews.py", "tasks/training/curves.py", "tasks/training/live.py")  # fmt: skip
TRAININGS = ("tasks.fire.training", "tasks.mae.training", "tasks.narration.language", "tasks.narration.training")


def test_another_way_to_draw_trains_nothing_and_makes_reports_anew(tmp_path):
    for package in ("tasks", "models", "storage"):
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    reports = ("tasks.fire.evaluate", "tasks.mae.report", "tasks.narration.report")
    before = digests(tmp_path, *TRAININGS, *reports)
    for name in DRAWING:
        with (tmp_path / name).open("a") as file:
            file.write("COLOUR = 'red'\n")
    after = digests(tmp_path, *TRAININGS, *reports)
    assert [name for name in before if after[name] != before[name]] == list(reports)


def digests(folder: Path, *modules: str) -> dict[str, str]:
    """Return the digest of each module's code as it lies in a folder."""
    program = "import sys; from tasks.code import Code; print(*map(Code().digest, sys.argv[1:]))"
    told = subprocess.run([sys.executable, "-c", program, *modules], cwd=folder, env=os.environ | {"PYTHONPATH": ""},
                          capture_output=True, text=True, check=True).stdout  # fmt: skip
    return dict(zip(modules, told.split(), strict=True))


def test_what_shapes_shards_is_in_the_code_digest_and_neither_progress_nor_the_sample_site_is():
    reached = Code().reached("tasks.image_text.shards").keys()
    assert {f"tasks.image_text.{name}" for name in ("fetch", "crawl", "picture", "packing", "retry")} <= reached
    assert not reached & {"tasks.image_text.live", "tasks.image_text.hosts"}
    assert not [name for name in reached if name.startswith("tasks.samples.")]
