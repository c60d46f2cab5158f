"""Real processes: killed at random moments, two at once, dead lock holders, a Dask cluster."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from distributed import LocalCluster

from storage.assets import Asset, AssetStore, verify
from storage.locks import FileLock
from tasks.progress import Silent
from tasks.session import Session
from tasks.units import Workers
from tests.conftest import REPOSITORY
from tests.spine import toy


def start(root: Path, log: Path, count: int, pause: float, workers: str = "2") -> subprocess.Popen[str]:
    """Start the toy stage in a process of its own."""
    command = [sys.executable, "-m", "tests.spine.toy", str(root), workers, str(count)]
    environment = os.environ | {"TOY_LOG": str(log), "TOY_PAUSE": str(pause)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}  # killed pools leave remarks about semaphores
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, text=True, start_new_session=True, **pipes)


def content(asset: Asset) -> dict[str, bytes]:
    """Return every file of an asset but the manifest, which holds times."""
    paths = [p for p in asset.folder.rglob("*") if p.is_file() and p.name != "manifest.json"]
    return {str(p.relative_to(asset.folder)): p.read_bytes() for p in paths}


@pytest.mark.long
def test_killed_at_twenty_random_moments_it_resumes_and_ends_byte_identical(tmp_path):
    count, pause = 60, 0.15
    undisturbed, _ = start(tmp_path / "calm", tmp_path / "calm.log", count, 0.0).communicate()
    chance = random.Random(20)
    log = tmp_path / "killed.log"
    finished_before: set[str] = set()
    kills = 0
    ledger = tmp_path / "killed" / "squares"
    while kills < 20:
        started = len(log.read_text().split()) if log.exists() else 0
        process = start(tmp_path / "killed", log, count, pause)
        # the first kills come while Python still starts; the others once units are in flight
        if kills >= 3:
            wait_for(lambda s=started: log.exists() and len(log.read_text().split()) > s)
        time.sleep(chance.uniform(0.0, 0.2))
        os.kill(process.pid, signal.SIGKILL)  # the parent alone: its workers must follow
        process.wait()
        kills += 1
        wait_for(lambda: not alive_workers(tmp_path / "killed"))
        finished = {p.stem for p in ledger.glob("*.partial/.units/n*.json")}
        assert finished_before <= finished, "a finished unit never gets lost"
        finished_before = finished
    assert 0 < len(finished_before) < count, "the kills hit the stage while it worked"

    log.write_text("")
    output, _ = start(tmp_path / "killed", log, count, 0.0).communicate()
    assert set(log.read_text().split()).isdisjoint(finished_before), "no finished unit is repeated"
    assert output.split()[0] == "RESUME"
    assert output.split()[-1] == undisturbed.split()[-1]
    calm, killed = AssetStore(tmp_path / "calm").assets()[0], AssetStore(tmp_path / "killed").assets()[0]
    assert content(calm) == content(killed)
    assert verify(killed, deep=True) == []


def wait_for(condition, seconds: float = 60.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def alive_workers(root: Path) -> bool:
    """Whether any process of the killed run still lives: each was started with the root on a command line."""
    import psutil

    lock = next((root / ".locks").glob("*.build"), None)
    if lock is None:
        return False
    pid = int(lock.read_text() or 0)
    return any(pid in (p.info["ppid"], p.info["pid"]) and p.status() != "zombie" for p in processes(psutil))


def processes(psutil):
    """Return living processes with their parents."""
    return psutil.process_iter(["pid", "ppid"])


def test_two_runs_at_once_one_works_and_the_other_gets_a_hit(tmp_path):
    log = tmp_path / "log"
    runs = [start(tmp_path / "root", log, 12, 0.1, workers="inline") for _ in range(2)]
    labels = sorted(process.communicate()[0].split()[0] for process in runs)
    assert labels == ["HIT", "RUN"]
    assert len(log.read_text().split()) == 12


def test_a_dead_lock_holder_blocks_nobody(tmp_path):
    path = tmp_path / "a.lock"
    code = (
        "import sys, time; from pathlib import Path; from storage.locks import FileLock\n"
        "lock = FileLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert not FileLock(path).try_acquire()
    assert FileLock(path).holder() == str(holder.pid)
    holder.kill()
    holder.wait()
    assert FileLock(path).try_acquire()


def test_units_run_on_a_real_dask_cluster(tmp_path):
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        session = Session(AssetStore(tmp_path / "dask"), Silent(), workers=Workers.parse(cluster.scheduler_address))
        with session.active():
            on_dask = toy.squares(count=20, first=0)
    inline = Session(AssetStore(tmp_path / "inline"), Silent())
    with inline.active():
        here = toy.squares(count=20, first=0)
    assert on_dask.fingerprint == here.fingerprint


def test_an_absent_dask_scheduler_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("distributed.Client.__init__", refuse)
    session = Session(AssetStore(tmp_path), Silent(), workers=Workers.parse("tcp://127.0.0.1:1"))
    with session.active(), pytest.raises(ValueError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        toy.squares(count=2, first=0)


def refuse(self, *args, **kwargs):
    """Fail as a client does after its time-out."""
    raise OSError("timed out")


def test_a_killed_worker_is_one_sentence_and_the_rest_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_SUICIDE", "n7")
    session = Session(AssetStore(tmp_path), Silent(), workers=Workers.parse("2"))
    with session.active(), pytest.raises(ChildProcessError, match="finished units are kept"):
        toy.squares(count=12, first=0)
    monkeypatch.delenv("TOY_SUICIDE")
    again = Session(AssetStore(tmp_path), Silent())
    with again.active():
        toy.squares(count=12, first=0)
    assert again.outcomes[0].label.startswith("RESUME ")
    assert again.outcomes[0].done > 0


def test_workers_setting_is_checked():
    with pytest.raises(ValueError, match="not understood"):
        Workers.parse("many")
