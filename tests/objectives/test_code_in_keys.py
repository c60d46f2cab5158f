"""Every module that a training loads is in its stage's key, or says of itself that it shapes nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from configs.alignment import AlignmentRecipe
from configs.answering import AnswererDesign
from configs.language import LanguageModelConfig
from configs.microvlm import VlmDesign, VlmStage
from configs.training import Execution
from configs.weather_lm import LanguageRecipe, MaeRecipe, NarratorRecipe
from configs.wildfire import FireRecipe
from storage.assets import Asset
from storage.hashing import canonical_json
from storage.manifest import MANIFEST
from tasks.alignment.training import alignment_training
from tasks.answering.training import answerer_training
from tasks.code import PACKAGES, Code
from tasks.fire.training import fire_training
from tasks.keys import named
from tasks.mae.training import mae_training
from tasks.narration.language import language_training
from tasks.narration.training import narrator_training
from tasks.stage import Stage
from tasks.vision_language.language import caption_language_training
from tasks.vision_language.training import vlm_training
from tests.conftest import REPOSITORY
from tests.objectives.cases import CASES, Data

pytestmark = pytest.mark.long
TRAININGS: dict[Stage[Any], dict[str, Any]] = {
    fire_training: {"recipe": FireRecipe},
    mae_training: {"recipe": MaeRecipe},
    language_training: {"recipe": LanguageRecipe},
    narrator_training: {"recipe": NarratorRecipe, "language_recipe": LanguageRecipe},
    caption_language_training: {"language": LanguageModelConfig},
    vlm_training: {"design": VlmDesign, "stage": VlmStage},
    alignment_training: {"recipe": AlignmentRecipe},
    answerer_training: {"design": AnswererDesign},
}
"""Every stage that trains, with those values of its objective's configuration that may name what they build."""
NAMES = (
    "fire: front", "fire: unet_s", "fire: tiny_3d", "fire: sam", "mae", "language: llama", "language: hrm_act",
    "narrator: 4 bits", "captions", "vlm: stage 2, by words, prefix", "vlm: ternary", "alignment",
    "alignment, pooled, sampled, by tokens, muon", "answers: plain", "answers: trm",
)  # fmt: skip


def in_key(name: str, data: Data) -> set[str]:
    """Return the modules in the key of the stage that carries out a training."""
    case = CASES[name]
    config = case.config(data)
    (stage,) = (stage for stage in TRAININGS if stage.objective == case.path)
    values = [TypeAdapter(kind).validate_python(config[part]) for part, kind in TRAININGS[stage].items()]
    inputs = [Path(value) for value in config.values() if isinstance(value, str) and Path(value, MANIFEST).exists()]
    builds = {*named(values), case.path, *(built for folder in inputs for built in Asset(folder).manifest.builds)}
    return set(Code().reached(stage.function.__module__, *(path.partition(":")[0] for path in builds)))


def test_every_objective_is_looked_at():
    assert {CASES[name].path for name in NAMES} == {case.path for case in CASES.values()}


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
