"""Faults around a run: Ctrl-C, read-only roots, full disks, servers that do not answer."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from flows.runs import load_runs
from storage.assets import AssetStore
from storage.files import atomic_path
from storage.raw import RawIndex
from storage.space import disk_sentence
from tests import warm
from tests.command import millrace
from tests.mounts import enlarge, fill, read_only, small_disk
from tests.spine.test_crash import wait_for
from tests.test_cli import SMALL
from tests.training.test_launch import KILLED, start, steps_done

INLINE = ("--engine", "inline", "--workers", "inline")
INTERRUPTED = "interrupted: finished stages, units and checkpoints are kept; the same command goes on"


def units(root: Path, kind: str) -> int:
    """Return how many units of an unfinished asset are finished."""
    return len(list(root.glob(f"{kind}/*.partial/.units/[!.]*.json")))


@pytest.fixture
def process() -> Iterator[list[warm.Process]]:
    """Processes that end with the test, stopped or not."""
    started: list[warm.Process] = []
    yield started
    for each in started:
        if each.poll() is None:
            os.killpg(each.pid, signal.SIGKILL)
            each.wait()


def stopped_workers(process: warm.Process, root: Path, kind: str) -> list[psutil.Process]:
    """Stop the worker processes of a run for good once one unit is done, and return them: theirs never end."""
    wait_for(lambda: units(root, kind) or process.poll() is not None, 400)
    workers = [p for p in psutil.Process(process.pid).children() if "spawn_main" in " ".join(p.cmdline())]
    for worker in workers:
        worker.suspend()
    return workers


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_an_interrupted_run_waits_for_no_unit(number, tmp_path, process):
    days = ("--set", "source.days=20")
    command = ("run", "weather", *SMALL, *days, "--engine", "inline", "--workers", "2")
    run = warm.start("flows", *command, MILLRACE_ROOT=str(tmp_path))
    process.append(run)
    workers = stopped_workers(run, tmp_path, "era5_windows")
    assert len(workers) == 2
    (os.killpg if number == signal.SIGINT else os.kill)(run.pid, number)  # as a terminal does, and a supervisor
    _, errors = run.communicate(timeout=400)
    assert run.returncode == 128 + number
    assert errors.strip() == INTERRUPTED
    wait_for(lambda: not any(psutil.pid_exists(w.pid) for w in workers))
    assert [record.state for record in load_runs(AssetStore(tmp_path))] == ["Cancelled"]
    assert re.search(r"weather +Cancelled", millrace("status", root=tmp_path).stdout)
    assert re.search(r"RESUME \d+/\d+ +era5_windows", millrace("plan", "weather", *SMALL, *days, root=tmp_path).stdout)


@pytest.mark.long
def test_an_interrupted_run_of_prefect_is_cancelled_there_too(tmp_path, process):
    run = warm.start(
        "flows", "run", "weather", *SMALL, "--set", "source.days=20", "--workers", "2", MILLRACE_ROOT=str(tmp_path)
    )
    process.append(run)
    stopped_workers(run, tmp_path, "era5_windows")
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: Prefect's temporary server is in the group
    _, errors = run.communicate(timeout=400)
    assert (run.returncode, errors.strip()) == (130, INTERRUPTED)
    assert [record.state for record in load_runs(AssetStore(tmp_path))] == ["Cancelled"]
    with closing(sqlite3.connect(tmp_path / ".prefect" / "prefect.db")) as db:
        assert db.execute("SELECT state_type FROM flow_run").fetchall() == [("CANCELLED",)]


def test_pipelines_side_by_side_end_although_one_of_them_waits_for_a_lock(tmp_path, process):
    first = warm.start("flows", "run", "weather", *INLINE, "--set", "source.days=300", MILLRACE_ROOT=str(tmp_path))
    process.append(first)
    wait_for(lambda: list(tmp_path.glob(".locks/era5_sample-*.build")))
    os.kill(first.pid, signal.SIGSTOP)
    later = ("--set", "weather.source.days=300")
    second = warm.start("flows", "run", "all", *INLINE, *later, MILLRACE_ROOT=str(tmp_path))
    process.append(second)
    wait_for(
        lambda: (
            sum(record.pid == second.pid and record.state == "Running" for record in load_runs(AssetStore(tmp_path)))
            >= 2
        )
    )
    wait_for(lambda: [p for p in tmp_path.glob("*/*.partial") if not p.parent.name.startswith("era5")])
    os.killpg(second.pid, signal.SIGINT)
    output, errors = second.communicate(timeout=400)
    assert (second.returncode, errors.strip()) == (130, INTERRUPTED), output
    states = {record.state for record in load_runs(AssetStore(tmp_path)) if record.pid == second.pid}
    assert states <= {"Cancelled", "Completed"}
    assert "Cancelled" in states


# -- read-only roots ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    result = millrace("run", "weather", *INLINE, *SMALL, root=root)
    assert result.returncode == 0, result.stderr
    return root


@pytest.mark.parametrize("locks", [True, False])
def test_a_read_only_root_serves_what_is_there(finished, tmp_path, locks):
    root = shutil.copytree(finished, tmp_path / "assets")
    shutil.rmtree(root / ".runs")
    if not locks:
        for name in (".locks", ".prefect"):
            shutil.rmtree(root / name, ignore_errors=True)
        (root / ".code.json").unlink()
    with read_only(root):
        run = millrace("run", "weather", *SMALL, root=root)
        assert run.returncode == 0, run.stderr
        assert f"{root} is read-only: nothing can be recorded there" in run.stdout
        assert "5 stages: 0 worked, 5 cached" in run.stdout
        changed = millrace("run", "weather", *SMALL, "--set", "windows.time=8", root=root)
        assert changed.returncode == 2
        assert re.fullmatch(r"error: .* is read-only, and era5_training_set has to be made .*\n", changed.stderr)
        assert millrace("plan", "weather", *SMALL, root=root).stdout.count("HIT") == 5
        for command in (["show", "era5_windows"], ["verify", "--deep"], ["status"]):
            result = millrace(*command, root=root)
            assert result.returncode == 0, result.stderr
        refused = millrace("pin", "era5_windows", root=root)
        assert refused.returncode == 1
        assert re.fullmatch(r"error: .*Read-only file system.*\n", refused.stderr)


def test_a_report_of_a_read_only_root_goes_elsewhere(finished, tmp_path):
    root = shutil.copytree(finished, tmp_path / "assets")
    with read_only(root):
        assert millrace("report", "weather", "-o", str(tmp_path / "page.html"), root=root).returncode == 0
        assert "Read-only file system" in millrace("report", "weather", root=root).stderr
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_raw_files_below_a_read_only_root_are_remembered_or_read_anew(tmp_path):
    (raw := tmp_path / "a.txt").write_text("raw")
    root = tmp_path / "root"
    root.mkdir()
    with read_only(root):
        fresh = RawIndex(root / ".raw.sqlite").read("files", [raw])
    RawIndex(root / ".raw.sqlite").read("files", [raw])
    with read_only(root):
        index = RawIndex(root / ".raw.sqlite")
        assert index.split([raw])[1] == []
        assert index.read("files", [raw]).fingerprint == fresh.fingerprint


@pytest.mark.input_shape(format="raw files", shape="unreadable or gone", outcome="refused")
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, monkeypatch):
    raw = tmp_path / "a.nc"
    index = RawIndex(tmp_path / ".raw.sqlite")
    with pytest.raises(ValueError, match=r"a\.nc cannot be read \(No such file or directory\); give this user"):
        index.split([raw])
    raw.write_text("x")

    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("storage.raw.file_sha256", refuse)
    with pytest.raises(ValueError, match=r"a\.nc cannot be read \(Permission denied\); give this user the right"):
        index.read("files", [raw])


# -- full disks ---------------------------------------------------------------------------------------------------

NO_SPACE = r"error: (\S+): there is no space left on the disk of (\S+), or in its quota: [\d.]+ k?M?B are free"


@pytest.mark.parametrize(("kilobytes", "stage", "workers"), [(300, "era5_sample", "inline"), (0, "era5_windows", "2")])
def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(finished, tmp_path, kilobytes, stage, workers):
    root = tmp_path / "assets"
    done = sum(asset.size for asset in AssetStore(finished).assets() if asset.kind in ("era5_sample", "era5_catalog"))
    windows = next(asset.size for asset in AssetStore(finished).assets("era5_windows"))
    run = ("run", "weather", "--engine", "inline", "--workers", workers, *SMALL)
    with small_disk(root, kilobytes or (done + windows // 2) // 1000 + 300):
        full = millrace(*run, root=root)
        assert full.returncode == 2, full.stdout + full.stderr
        assert re.match(NO_SPACE, full.stderr), full.stderr
        assert len(full.stderr.splitlines()) == 1
        if units(root, stage):
            needed = r"(about [\d.]+ k?M?B are|more than [\d.]+ k?M?B is) needed for the \d+ units to come"
            assert re.search(needed, full.stderr)
        assert not [asset for asset in AssetStore(root).assets() if asset.kind == stage]
        enlarge(root, 100_000)
        again = millrace(*run, root=root)
        assert again.returncode == 0, again.stderr
        ours, calm = ({a.kind: a.fingerprint for a in AssetStore(place).assets()} for place in (root, finished))
        assert ours == calm


def write_as_libraries_do(path: Path) -> None:
    """Fill the disk, and tell of it in words that say nothing."""
    with atomic_path(path) as temporary:
        fill(path.parent).rename(temporary)
        raise RuntimeError("NetCDF: HDF error")


def test_a_full_disk_is_told_although_a_library_does_not_and_the_half_written_file_is_gone(tmp_path):
    with small_disk(tmp_path, 200):
        with pytest.raises(OSError, match="No space left") as caught:
            write_as_libraries_do(tmp_path / "a.nc")
        assert caught.value.filename == str(tmp_path / "a.nc")
        assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_of_tasks_that_ran_together(tmp_path):
    group = ExceptionGroup(
        "unhandled errors", [RuntimeError("another"), OSError(errno.ENOSPC, "No space left on device")]
    )
    workspace = AssetStore(tmp_path).workspace(AssetStore(tmp_path).asset("image_text_shards", "a" * 24))
    workspace.folder.mkdir(parents=True)
    (workspace.folder / "00000.tar").write_bytes(b"x" * 5_000)
    said = disk_sentence(group, workspace)
    assert said is not None
    assert re.match(r"\S+: there is no space left on the disk of \S+, .* are free, and more than .* is needed", said)
    assert disk_sentence(ExceptionGroup("unhandled errors", [RuntimeError("another")]), workspace) is None


def test_a_disk_that_a_training_fills_is_one_sentence_and_the_training_goes_on(tmp_path):
    root = tmp_path / "assets"
    with small_disk(root, 4000):
        process = start(root, KILLED, pause=0.02)
        wait_for(lambda: steps_done(root) >= 7)
        filler = fill(root)
        _, errors = process.communicate()
        last = errors.strip().splitlines()[-1].replace("ValueError:", "error:")
        assert re.match(NO_SPACE, last), errors
        filler.unlink()
        output, errors = start(root, KILLED).communicate()
        assert output.startswith("RESUME"), errors


# -- servers and addresses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1:9000", "minio:9000", "http://", "ftp://host", "http://host:port"])
def test_an_s3_address_that_is_none_is_one_sentence(address, tmp_path):
    where = {"AWS_ENDPOINT_URL": address, "MILLRACE_CACHE": str(tmp_path)}
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    result = millrace("plan", "weather", "-p", "windows", "--root", "s3://bucket/x", root=tmp_path, **where, **keys)
    assert result.returncode == 2
    assert result.stderr == (
        f"error: AWS_ENDPOINT_URL: {address!r} is no address; write it as http://host:9000 or https://host\n"
    )


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        pytest.param(
            "PREFECT_API_DATABASE_CONNECTION_URL",
            "sqlite+aiosqlite:////nowhere/a.db",
            "the Prefect server did not start",
            marks=pytest.mark.long,
        ),
        ("PREFECT_API_URL", "http://127.0.0.1:9/api", "the Prefect server at http://127.0.0.1:9/api does not answer"),
    ],
)
def test_a_prefect_server_that_does_not_start_or_answer_is_one_sentence(name, value, sentence, tmp_path):
    retries = {"PREFECT_CLIENT_MAX_RETRIES": "0"}
    result = millrace("run", "weather", *SMALL, root=tmp_path, **{name: value}, **retries)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {sentence}"), result.stderr
    assert len(result.stderr.splitlines()) == 1
