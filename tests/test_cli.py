"""The `millrace` command as a person uses it: real processes, exit codes, and what they print."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from flows.runs import load_runs
from storage.stores import open_store
from tests import warm
from tests.command import millrace
from tests.conftest import REPOSITORY

SMALL = [
    *("--profile", "windows"),
    *("--set", "source.days=6", "--set", "source.resolution=1.5", "--set", "source.step_hours=3"),
    *("--set", "windows.height=16", "--set", "windows.width=16", "--set", "windows.time=4"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A root in which a small sample has become windows."""
    root = tmp_path_factory.mktemp("finished")
    result = millrace("run", "weather", "--engine", "inline", "--workers", "inline", *SMALL, root=root)
    assert result.returncode == 0, result.stderr
    assert "5 stages: 5 worked, 0 cached" in result.stdout
    return root


def folder(root: Path, kind: str) -> Path:
    return next(p for p in (root / kind).iterdir() if p.is_dir() and "." not in p.name)


def test_a_rerun_is_all_hits_and_plan_agrees(finished):
    assert (
        "5 stages: 0 worked, 5 cached" in millrace("run", "weather", "--engine", "inline", *SMALL, root=finished).stdout
    )
    plan = millrace("plan", "weather", *SMALL, root=finished).stdout
    assert plan.count("HIT") == 5
    assert "RUN" not in plan


def test_plan_names_the_changed_field(finished):
    plan = millrace("plan", "weather", *SMALL, "--set", "windows.time=8", root=finished).stdout
    assert re.search(r"RUN\s+era5_training_set\s+config windows.time 4 -> 8", plan)
    assert plan.count("HIT") == 3


def test_brackets_in_what_is_printed_are_no_markup(finished):
    """Rich would take [/data] for a closing tag."""
    plan = millrace("plan", "weather", *SMALL, "--set", "recipe.variables=['[/data]']", root=finished)
    assert plan.returncode == 0, plan.stderr
    assert "[/data]" in plan.stdout
    missing = millrace("plan", "weather", "-p", "files", "--set", "source.paths=['[/data]']", root=finished)
    assert "[/data]" in missing.stderr


def test_plan_does_not_import_prefect(finished):
    code = (
        "import sys; sys.argv = ['millrace', 'plan', 'weather']\n"
        "from flows.commands.cli import app\n"
        "try: app()\nexcept SystemExit: pass\n"
        "assert 'prefect' not in sys.modules, 'plan imports prefect'"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=os.environ | {"MILLRACE_ROOT": str(finished)}, check=False
    )
    assert result.returncode == 0


def test_status_show_and_report(finished, tmp_path):
    status = millrace("status", root=finished).stdout
    assert "era5_windows" in status
    assert "Completed" in status
    shown = millrace("show", "era5_training_set", root=finished).stdout
    assert "era5_windows" in shown
    assert "era5_sample" in shown, "the lineage reaches what everything was made from"
    page = tmp_path / "page.html"
    assert millrace("report", "weather", "-o", str(page), root=finished).returncode == 0
    html = page.read_text()
    assert html.count("data:image/png;base64,") >= 2
    assert "NaN share" in html
    assert "http" not in re.sub(r"data:image/png;base64,[^\"]*", "", html), "the page needs nothing from outside"


def test_verify_names_a_flipped_byte_only_when_deep(finished):
    victim = next((folder(finished, "era5_windows") / "data").rglob("c/*/0/0/0"))
    original = victim.read_bytes()
    victim.chmod(0o644)
    victim.write_bytes(original[:100] + bytes([original[100] ^ 1]) + original[101:])
    try:
        assert millrace("verify", root=finished).returncode == 0
        deep = millrace("verify", "--deep", root=finished)
        assert deep.returncode == 1
        assert "SHA-256 differs" in deep.stdout
    finally:
        victim.write_bytes(original)


def test_gc_leaves_what_a_process_uses(finished, tmp_path):
    root = shutil.copytree(finished, tmp_path / "assets", ignore=shutil.ignore_patterns(".runs"))
    assert millrace("pin", "era5_catalog", "--note", "kept for a paper", root=root).returncode == 0
    holder = hold(root, "era5_windows")
    first = millrace("gc", "--yes", "--age", "0", root=root)
    holder.kill()
    holder.wait()
    assert re.search("kept era5_windows.*a running process uses it", first.stdout)
    assert folder(root, "era5_windows").exists()
    assert folder(root, "era5_catalog").exists()
    assert folder(root, "era5_sample").exists(), "a pin keeps what its asset was made from"
    assert not list((root / "era5_report").glob("[0-9a-f]*"))

    assert "freed" in millrace("gc", "--yes", "--age", "0", root=root).stdout
    assert not list((root / "era5_windows").glob("[0-9a-f]*"))


def hold(root: Path, kind: str) -> subprocess.Popen[str]:
    """Start a process that uses the newest asset of a kind."""
    code = (
        "import sys, time; from pathlib import Path; from storage.assets import AssetStore\n"
        "store = AssetStore(Path(sys.argv[1])); lock = store.use_lock(store.find(sys.argv[2])); lock.acquire()\n"
        "print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(root), kind], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_reap_closes_a_killed_run(tmp_path):
    root = tmp_path / "assets"
    long = ("--engine", "inline", "--workers", "inline", "--set", "source.days=300")
    process = warm.start("flows", "run", "weather", *long, MILLRACE_ROOT=str(root))
    while not list((root / ".runs").glob("*.json")):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    record = next((root / ".runs").glob("*.json"))
    assert json.loads(record.read_text())["state"] == "Running"
    assert "killed" in millrace("status", root=root).stdout
    assert "Crashed" in millrace("reap", root=root).stdout
    assert json.loads(record.read_text())["state"] == "Crashed"
    assert "every run that says Running has a live process" in millrace("reap", root=root).stdout


BAD_INPUT = {
    "unknown pipeline": (["plan", "wether"], "there is no pipeline 'wether'"),
    "unknown profile": (["plan", "weather", "-p", "huge"], "it has ablations, captioned, captioned_gpu, demo"),
    "unknown field": (["plan", "weather", "--set", "windows.hight=3"], "windows.hight: there is no such field"),
    "out of bounds": (["plan", "weather", "--set", "windows.time=0"], "windows.time: Input should be greater than"),
    "no raw files": (["run", "weather", "-p", "files", "--engine", "inline"], "'data/era5' matches no file"),
    "unknown asset": (["show", "era5_windows"], "no asset 'era5_windows'"),
    "one page for all": (["report", "all", "-o", "page.html"], "all makes a page for each pipeline"),
    "workers": (["run", "weather", "--engine", "inline", "--workers", "lots"], "'lots' is not understood"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_sentence_and_exit_code_2(case, tmp_path):
    arguments, sentence = BAD_INPUT[case]
    result = millrace(*arguments, root=tmp_path)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_a_shadowing_folder_is_named(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").touch()
    place = {"root": tmp_path / "assets", "cwd": tmp_path, "PYTHONPATH": str(REPOSITORY)}
    result = millrace("plan", "weather", cold=True, **place)
    assert result.returncode == 2
    assert f"the package 'tasks' is found at {tmp_path / 'tasks'}" in result.stderr


def test_help_teaches(tmp_path):
    text = millrace("--help", root=tmp_path).stdout
    for verb in ("run", "plan", "status", "show", "verify", "gc", "reap", "serve", "report"):
        assert verb in text
    assert "HIT" in millrace("plan", "--help", root=tmp_path).stdout


def rows(database: Path, table: str) -> int:
    with closing(sqlite3.connect(database)) as opened:
        (count,) = opened.execute(f"select count(*) from {table}").fetchone()
    return int(count)


@pytest.mark.long
def test_a_run_without_a_server_brings_an_api_of_its_own_unless_everything_is_cached(tmp_path):
    def run(root: Path) -> str:
        cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = millrace("run", "weather", *SMALL, root=root, **cache)
        assert done.returncode == 0, done.stderr
        return done.stdout

    one, two = tmp_path / "one", tmp_path / "two"
    assert "Prefect: API of this run alone" in run(one)
    assert load_runs(open_store(one))[0].engine == "prefect"
    assert rows(one / ".prefect" / "prefect.db", "flow_run") == 1

    assert "Prefect: not started, everything is cached" in run(one)
    again = load_runs(open_store(one))[0]
    assert (again.engine, again.state, len(again.stages)) == ("inline", "Completed", 5)
    assert rows(one / ".prefect" / "prefect.db", "flow_run") == 1

    (kept,) = (tmp_path / "cache" / "millrace").iterdir()
    assert rows(kept, "flow_run") == 0, "nobody's runs are kept for other roots"
    with closing(sqlite3.connect(kept)) as database:
        database.execute("create table kept_before (number integer)")
    run(two)
    assert rows(two / ".prefect" / "prefect.db", "flow_run") == 1
    assert rows(two / ".prefect" / "prefect.db", "kept_before") == 0, "another root began with what was kept"
