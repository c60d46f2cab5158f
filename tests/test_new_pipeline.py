"""`millrace new`, and a fifth pipeline as docs/new_pipeline.md walks through it, in a copy of the repository."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.load import profile_names
from flows.pipelines import find_pipeline, pipeline_names
from tests.conftest import REPOSITORY

BLOCK = re.compile(r"([^\n]*)\n\n```(\w+)\n(.*?)(?=```\n)", re.DOTALL)
COPIED = ("configs", "docs", "flows", "models", "storage", "tasks", "prefect.yaml", "pyproject.toml")
MOST_LINES = 100
PIPES: dict[str, Any] = {"capture_output": True, "text": True}
PLUGINS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p no:cacheprovider"}


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the repository's own code; its tests stay behind."""
    leave = shutil.ignore_patterns("__pycache__", "pictures")
    for name in COPIED:
        source, target = REPOSITORY / name, tmp_path / name
        shutil.copytree(source, target, ignore=leave) if source.is_dir() else shutil.copy(source, target)
    return tmp_path


def call(checkout: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the document in the copy, with the copy's code and nothing imported before."""
    program, *words = shlex.split(command)
    arguments = ["-m", "flows", *words] if program == "millrace" else words
    environment = {**os.environ, **PLUGINS, "PYTHONPATH": str(checkout), "COLUMNS": "200"}
    environment["MILLRACE_ROOT"] = str(checkout / "assets")
    environment["PYTEST_DEBUG_TEMPROOT"] = str(checkout)  # pytest removes what older ones left, which takes minutes
    inline = ["--workers", "inline"] if "run" in words else []
    return subprocess.run([sys.executable, *arguments, *inline], cwd=checkout, env=environment, timeout=400, **PIPES)


def plain(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.long
def test_the_document_leads_to_a_fifth_pipeline(checkout):
    said, own = "", 0
    for before, language, block in BLOCK.findall((checkout / "docs/new_pipeline.md").read_text()):
        if language == "sh":
            said = ""
            for command in block.splitlines():
                done = call(checkout, command)
                assert done.returncode == 0, command + done.stdout + done.stderr
                said += plain(done.stdout) + "\n"
        elif language == "text":
            assert [line for line in block.splitlines() if line not in said] == [], said
        else:
            own += sum(bool(line.strip()) for line in block.splitlines())
            path = checkout / re.findall(r"`([\w/]+\.\w+)`", before)[0]
            path.parent.mkdir(exist_ok=True)
            path.write_text(block)
    assert own < MOST_LINES
    assert (checkout / "assets/rain_table").is_dir()
    changed = [path for path in REPOSITORY.rglob("*.py") if path.parts[-2] in ("flows", "configs", "tasks")]
    assert all(path.read_bytes() == (checkout / path.relative_to(REPOSITORY)).read_bytes() for path in changed)


@pytest.mark.long
def test_what_is_written_runs_as_it_is_and_passes_its_own_test_and_style(checkout):
    written = call(checkout, "millrace new zonal_means")
    files = re.findall(r"^new +(\S+)", written.stdout, re.MULTILINE)
    assert len(files) == 6, written.stdout + written.stderr
    tested = call(checkout, "python -m pytest tests/test_zonal_means.py")
    assert "1 passed" in tested.stdout, tested.stdout
    (offered,) = yaml.safe_load((checkout / "prefect.yaml").read_text())["deployments"][-1:]
    assert (offered["name"], offered["entrypoint"]) == ("demo", "flows/deployments.py:zonal_means")
    assert offered["parameters"] == {"config": "{{ zonal_means_demo }}"}
    code = "import flows.deployments as d; print(d.zonal_means.name, list(d.zonal_means.parameters.properties))"
    assert call(checkout, f"python -c {shlex.quote(code)}").stdout == "zonal_means ['config']\n"
    for style in ("check", "format --check"):
        checked = call(checkout, f"python -m ruff {style} --no-cache {' '.join(f for f in files if f.endswith('.py'))}")
        assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Rain-Table", "'Rain-Table' cannot name a pipeline"),
        ("all", "'all' cannot name a pipeline"),
        ("import", "'import' cannot name a pipeline"),
        ("weather", "flows/weather.py"),
        ("runner", "flows/runner.py"),
        ("era5", "tasks/era5"),
    ],
)
def test_a_name_that_is_taken_or_no_name_writes_nothing(checkout, name, told):
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    refused = call(checkout, f"millrace new {name}")
    assert refused.returncode == 2
    assert told in refused.stderr
    assert {p: p.read_bytes() for p in checkout.rglob("*") if p.is_file() and p.suffix != ".pyc"} == before


def test_a_folder_that_is_no_checkout_is_refused(checkout):
    refused = call(checkout, "millrace new rain --into docs")
    assert refused.returncode == 2
    assert "there is no checkout of Millrace" in refused.stderr


def test_every_pipeline_is_named_as_its_module_and_every_deployment_is_a_pipeline_with_that_profile():
    deployments = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    for deployment in deployments:
        name = deployment["entrypoint"].removeprefix("flows/deployments.py:")
        assert deployment["name"] in profile_names(name)
        assert deployment["parameters"] == {"config": f"{{{{ {name}_{deployment['name']} }}}}"}
    assert {d["entrypoint"] for d in deployments} == {f"flows/deployments.py:{name}" for name in pipeline_names()}
    assert [find_pipeline(name).name for name in pipeline_names()] == pipeline_names()
