"""The rules of the house: which way imports run, and who may know Prefect."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.code import Code
from tests.conftest import LONGEST, REPOSITORY
from tests.imports import DRAWING, circles, drawing, import_graph, room_of, rooms

ALLOWED = {
    "flows": {"flows", "tasks", "models", "storage", "configs"},
    "tasks": {"tasks", "models", "storage", "configs"},
    "models": {"models", "configs"},
    "storage": {"storage", "configs"},
    "configs": {"configs"},
}
MAY_KNOW_PREFECT = ("flows/", "tasks/stage.py")
SHARED_ROOMS = {"tasks", "tasks.training", "tasks.text", "tasks.quantise"}
WEATHER = ("era5", "captions", "mae", "narration", "weather_questions")
FAMILY = {f"tasks.{room}": "weather" for room in WEATHER} | {
    f"tasks.{room}": "trm_vlm" for room in ("alignment", "answering")
}
"""Rooms that belong together; any other room of tasks is a family of its own."""
ACROSS = {("tasks.image_text.shards", "tasks.samples.site_process")}
"""A sample's website is up while its images are fetched. It is infrastructure, and the import is in the crawl's key."""
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


def test_no_modules_import_each_other_in_a_circle():
    assert circles(import_graph()) == []
    assert circles(rooms()) == [], "rooms import each other in a circle"


def family(module: str) -> str | None:
    """Return the family whose room a module of tasks lies in; None for shared rooms."""
    room = room_of(module)
    return None if room in SHARED_ROOMS else FAMILY.get(room, room)


def test_no_room_imports_that_of_another_family():
    imported = {
        (name, other)
        for name, found in import_graph().items()
        for other in found
        if name.startswith("tasks") and other.startswith("tasks")
    }
    across = {(a, b) for a, b in imported if family(b) is not None and family(a) != family(b)}
    assert across == ACROSS, "move what two families need to a shared room"


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set()}) == [{"a", "b", "c"}]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_every_room_lists_its_stages():
    """As lines of stages and the file that they are in, in the docstring of its `__init__`."""
    for room in (path.parent for path in (REPOSITORY / "tasks").glob("*/__init__.py")):
        stages = {
            path.name: re.findall(r"^@stage\(.*\)\ndef (\w+)", path.read_text(), re.M) for path in room.glob("*.py")
        }
        listed = re.findall(r"^    (\w+(?:, \w+)*) +(\w+\.py)$", (room / "__init__.py").read_text(), re.M)
        told = {file: names.split(", ") for names, file in listed}
        assert told == {file: names for file, names in stages.items() if names}, f"stages of {room}"


def test_files_whose_tests_begin_first_are_there():
    assert [name for name in LONGEST if not (REPOSITORY / name).is_file()] == []


def test_the_drawing_of_the_imports_is_up_to_date():
    assert DRAWING.read_text().endswith(drawing()), "run python -m tests.imports"


def test_every_part_of_ingest_is_in_its_code_digest():
    reached = Code().reached("tasks.era5.ingest").keys()
    assert {"tasks.era5.block", "tasks.era5.planes", "storage.window_store", "storage.shards"} <= reached


def test_what_shapes_weights_is_in_the_code_digest_of_a_training_and_logging_is_not():
    reached = Code().reached("tasks.fire.training", "tasks.fire.objective").keys()
    shaping = {"worker", "loop", "loader", "optimiser", "objective", "share", "release", "publish"}
    assert {f"tasks.training.{name}" for name in shaping} <= reached
    assert {"models.fire.losses", "tasks.fire.dataset"} <= reached
    assert not reached & {f"tasks.training.{name}" for name in ("events", "torchrun", "tracking", "sweep")}


PICTURES = ("tasks/figures.py", "tasks/fire/palette.py", "tasks/fire/figures_maps.py", "tasks/fire/previews.py",
           "tasks/mae/pictures.py", "tasks/mae/previews.py", "tasks/narration/pictures.py",
           "tasks/narration/previews.py", "tasks/training/curves.py", "tasks/training/live.py")  # fmt: skip
TRAININGS = ("tasks.fire.training,tasks.fire.objective", "tasks.mae.training,tasks.mae.objective",
             "tasks.narration.language,tasks.narration.language_objective",
             "tasks.narration.training,tasks.narration.objective")  # fmt: skip


@pytest.mark.long
def test_another_way_to_draw_trains_nothing_and_makes_reports_anew(tmp_path):
    for package in ("tasks", "models", "storage"):
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    reports = ("tasks.fire.evaluate", "tasks.mae.report", "tasks.narration.report")
    before = digests(tmp_path, *TRAININGS, *reports)
    for name in PICTURES:
        with (tmp_path / name).open("a") as file:
            file.write("COLOUR = 'red'\n")
    after = digests(tmp_path, *TRAININGS, *reports)
    assert [name for name in before if after[name] != before[name]] == list(reports)


def digests(folder: Path, *modules: str) -> dict[str, str]:
    """Return the digest of each module's code, or of several with commas between them, as it lies in a folder."""
    program = "import sys; from tasks.code import Code; print(*(Code().digest(*m.split(',')) for m in sys.argv[1:]))"
    told = subprocess.run([sys.executable, "-c", program, *modules], cwd=folder, env=os.environ | {"PYTHONPATH": ""},
                          capture_output=True, text=True, check=True).stdout  # fmt: skip
    return dict(zip(modules, told.split(), strict=True))


def test_what_shapes_shards_is_in_the_code_digest_and_neither_progress_nor_the_sample_site_is():
    reached = Code().reached("tasks.image_text.shards").keys()
    assert {f"tasks.image_text.{name}" for name in ("fetch", "crawl", "picture", "packing", "retry")} <= reached
    assert not reached & {"tasks.image_text.live", "tasks.image_text.hosts"}
    assert not [name for name in reached if name.startswith("tasks.samples.")]
