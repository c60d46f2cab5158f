"""Every module that a training loads is in its stage's key, or says of itself that it shapes nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from configs.training import Execution
from configs.weather_lm import LanguageRecipe, MaeRecipe, NarratorRecipe
from configs.wildfire import FireRecipe
from storage.hashing import canonical_json
from tasks.code import PACKAGES, Code
from tasks.fire.training import fire_training
from tasks.keys import named
from tasks.mae.training import mae_training
from tasks.narration.language import language_training
from tasks.narration.training import narrator_training
from tests.conftest import REPOSITORY
from tests.objectives.cases import CASES, Data
from tests.once import only

STAGES = {stage.objective: stage for stage in (fire_training, mae_training, language_training, narrator_training)}
NAMES = (
    "fire: front", "fire: unet_s", "fire: tiny_3d", "fire: sam", "mae", "language: llama", "language: hrm_act",
    "narrator: 4 bits",
)  # fmt: skip


def in_key(name: str, data: Data) -> set[str]:
    """Return the modules in the key of the stage that carries out a training."""
    case = CASES[name]
    stage, config = STAGES[case.path], case.config(data)
    recipe = {"fire": FireRecipe, "mae": MaeRecipe, "language": LanguageRecipe, "narrator": NarratorRecipe}
    values: list[Any] = [recipe[name.split(":")[0]].model_validate(config["recipe"])]
    builds = set()
    if name.startswith("narrator"):
        values.append(LanguageRecipe.model_validate(config["language_recipe"]))
        for kind in ("weather_mae", "weather_language"):
            builds |= set(only(data.weather, kind).manifest.builds)
    builds |= {*named(values), case.path}
    return set(Code().reached(stage.function.__module__, *(path.partition(":")[0] for path in builds)))


def loaded(data: Data, folder: Path) -> dict[str, set[str]]:
    """Train every case for a step, and return the project's modules that each training loaded."""
    jobs = []
    for number, name in enumerate(NAMES):
        case, place = CASES[name], folder / str(number)
        place.mkdir()
        job = {
            "stage": "training", "key": "0", "folder": str(place), "scratch": str(place / ".scratch"),
            "wandb_folder": str(place), "objective": case.path, "objective_config": case.config(data),
            "training": case.settings(epochs=1, accumulation=1, freeze={}),
            "execution": Execution(device="cpu", threads=1, wandb={"mode": "disabled"}),
        }  # fmt: skip
        (place / ".scratch").mkdir()
        (place / "job.json").write_text(canonical_json(job))
        jobs.append(str(place / "job.json"))
    command = [sys.executable, "-m", "tests.objectives.loaded", *jobs]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    lines = done.stdout.splitlines()
    assert len(lines) == len(NAMES), done.stderr[-3000:]
    ours = [{m for m in json.loads(line) if m.split(".")[0] in PACKAGES} for line in lines]
    return dict(zip(NAMES, ours, strict=True))


@pytest.fixture(scope="module")
def trainings(data: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    return loaded(data, tmp_path_factory.mktemp("trainings"))


def is_bare_package(module: str) -> bool:
    """Whether a package holds nothing but words about it."""
    path = REPOSITORY / module.replace(".", "/") / "__init__.py"
    return path.exists() and not [s for s in ast.parse(path.read_text()).body if not isinstance(s, ast.Expr)]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_training_loads_is_in_its_key_or_shapes_nothing(name, data, trainings):
    shaping = {module for module in trainings[name] if Code().reached(module) and not is_bare_package(module)}
    assert not shaping - in_key(name, data)


def test_a_sibling_is_in_no_key(data):
    assert not {name for name in in_key("fire: unet_s", data) if "emberformer" in name or "decoder" in name}
    assert not {name for name in in_key("fire: front", data) if "sam_" in name or "unet_s" in name}
    assert not {name for name in in_key("fire: unet_s", data) if "front" in name}
    others = ("hrm", "adaptation", "swin", "mae", "prefixer", "narrator")
    assert not {name for name in in_key("language: llama", data) if any(other in name for other in others)}
