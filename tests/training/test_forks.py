"""The process that forks trainings: what it gives, when it is asked no more, and how everything ends."""

from __future__ import annotations

import atexit
import gc
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psutil
import pytest

from configs.training import Execution
from tasks.training import forks, launch
from tasks.units import Children, Workers, cores
from tests import warm
from tests.conftest import REPOSITORY
from tests.training.test_launch import alive, wait_for

pytestmark = pytest.mark.skipif(not forks.AVAILABLE, reason="forks need Linux")
START = forks.start
NO_JOB = "No such file or directory"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for jobs; no server outlives the test."""
    monkeypatch.setattr(forks, "_server", None)
    yield tmp_path
    if forks._server is not None:
        process = server()
        forks._server.leave()
        wait_for(lambda: not alive(process))


@cache
def light() -> Path:
    """The project's code, which imports nothing ahead: what is forked here trains nothing, and libraries take long."""
    code = Path(tempfile.mkdtemp(prefix="millrace-light-"))
    atexit.register(shutil.rmtree, code)
    for folder in ("configs", "models", "storage", "tasks"):
        shutil.copytree(REPOSITORY / folder, code / folder, ignore=shutil.ignore_patterns("__pycache__"))
    module = code / "tasks" / "training" / "forks.py"
    text, count = re.subn(r"^LIBRARIES = \(\n.*?^\)$", "LIBRARIES = ()", module.read_text(), flags=re.M | re.S)
    assert count == 1
    module.write_text(text)
    return code


def start(job: Path, code: Path | None = None, **environment: str) -> forks.Forked:
    """Start a training; one without a job says so and ends with status 1, and one whose job is a pipe waits for it."""
    return START(job, "tests.training:Toy", variables(**{"PYTHONPATH": str(code or light())} | environment))


def variables(**more: str) -> dict[str, str]:
    settings = {"PYTHONPATH": str(light()), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    settings["PYTHONDONTWRITEBYTECODE"] = "1"  # code that changes twice within a second would be taken from there
    kept = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return kept | settings | more


def waiting(place: Path, name: str, **environment: str) -> forks.Forked:
    os.mkfifo(place / name)
    return start(place / name, **environment)


def server() -> psutil.Process:
    assert forks._server is not None
    return psutil.Process(forks._server._process.pid)


def test_what_trainings_need_is_imported_ahead_of_the_first_one(place):
    (place / "ahead.py").write_text(f"open({str(place / 'imported')!r}, 'w').close()")
    path = {"PYTHONPATH": os.pathsep.join([str(light()), str(place)])}
    forks.prepare(["absent", "ahead"], variables(**path))
    number = server().pid
    wait_for((place / "imported").exists)
    assert waiting(place, "job", **path).poll() is None
    forks.prepare(["another"], variables())
    assert server().pid == number, "the first training is forked from the process that was prepared"


def copied(place: Path, read: str) -> Path:
    """Copy the project's code, with another way to read a job."""
    shutil.copytree(light(), place / "code")
    worker = place / "code" / "tasks" / "training" / "worker.py"
    worker.write_text(worker.read_text().replace("json.loads(Path(path).read_bytes())", read))
    return place / "code"


def test_variables_that_libraries_set_meanwhile_are_passed_on(place):
    code = copied(place, "sys.exit(os.environ['SET_LATER'])")
    forks.prepare([], variables(PYTHONPATH=str(code)))
    number = server().pid
    process = start(place / "absent", code, SET_LATER="by a library")
    assert "by a library" in process.stdout.read()
    assert process.wait() == 1
    assert server().pid == number, "what was prepared is used"


def test_code_that_changes_after_it_was_imported_ahead_is_never_forked(place):
    code = copied(place, "sys.exit(7)")
    (place / "ahead.py").write_text(f"open({str(place / 'imported')!r}, 'w').close()")
    path = os.pathsep.join([str(code), str(place)])
    forks.prepare(["ahead"], variables(PYTHONPATH=path))
    number = server().pid
    wait_for((place / "imported").exists)
    worker = code / "tasks" / "training" / "worker.py"
    worker.write_text(worker.read_text().replace("sys.exit(7)", "sys.exit(8)"))
    assert start(place / "absent", PYTHONPATH=path).wait() == 8
    assert server().pid != number
    wait_for(lambda: not psutil.pid_exists(number) or psutil.Process(number).status() == psutil.STATUS_ZOMBIE)
    assert start(place / "absent", PYTHONPATH=path).wait() == 8
    assert not psutil.pid_exists(number), "a server that has ended is no zombie"


def test_a_training_is_killed_at_once_though_another_begins_that_imports_for_long(place):
    """The module of the second one never ends to be imported: whoever waits for that waits for ever."""
    os.mkfifo(place / "gate")
    (place / "slow.py").write_text(f"open({str(place / 'gate')!r}).read()")
    path = variables(PYTHONPATH=os.pathsep.join([str(light()), str(place)]))
    first = waiting(place, "job", **path)
    second = START(place / "absent", "slow:Toy", path)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    assert NO_JOB in second.stdout.read()
    assert second.wait() == 1


def test_the_end_of_a_training_is_for_whoever_waits_for_it():
    """Another thread that begins one only looks at what is known already."""

    class Told:
        returncode: int | None = None
        killed = False

        def poll(self) -> None:
            raise AssertionError("this would take the exit status from the thread that waits for it")

        def kill(self) -> None:
            self.killed = True

    children, first, ended, last = Children(), Told(), Told(), Told()
    for each in (first, ended):
        children.start(lambda each=each: each)
    ended.returncode = 0
    children.start(lambda: last)
    children.end()
    assert (first.killed, ended.killed, last.killed) == (True, False, True)


def test_macos_says_how_many_cores_there_are(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores() == Workers.parse("auto").processes == 6
    assert launch.trainings_at_once(Execution(device="cpu", threads=2)) == 3


@pytest.mark.long
def test_forks_share_no_temporary_folder_of_wandb():
    names = (*forks.LIBRARIES, "tasks.alignment.objective", "tasks.fire.objective")
    code = f"import importlib, sys; [importlib.import_module(name) for name in {names}]; print('wandb' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert told.stdout == "False\n", "its folder of pictures goes with the first process to end"


def test_one_server_forks_all_and_each_tells_its_own_output_and_end(place):
    first, second = start(place / "absent"), start(place / "absent-too")
    number = server().pid
    for process, name in ((second, "absent-too"), (first, "absent")):
        assert f"{NO_JOB}: '{place / name}'" in process.stdout.read()
        assert process.wait() == process.poll() == 1
    assert start(place / "absent").wait() == 1
    assert server().pid == number


def test_a_training_that_is_killed_takes_no_other_along(place):
    first, second = waiting(place, "first"), waiting(place, "second")
    assert first.poll() is None
    first.kill()
    assert first.wait() == -signal.SIGKILL
    assert first.stdout.read() == ""
    (place / "second").write_text("{")  # opens the pipe
    assert "JSONDecodeError" in second.stdout.read()
    assert second.wait() == 1


def test_a_training_dies_with_its_server_and_the_next_has_another(place):
    process = waiting(place, "job")
    wait_for(lambda: server().children())
    (child,), number = server().children(), server().pid
    server().kill()
    assert process.wait() == -signal.SIGKILL
    wait_for(lambda: not alive(child))
    assert start(place / "absent").wait() == 1
    assert server().pid != number


def test_libraries_are_imported_anew_under_another_environment_while_the_old_training_goes_on(place):
    process = waiting(place, "job", MKL_CBWR="AUTO")
    old = server()
    assert start(place / "absent", MKL_CBWR="COMPATIBLE").wait() == 1
    assert server().pid != old.pid
    assert process.poll() is None
    (place / "job").write_text("{")
    assert process.wait() == 1
    wait_for(lambda: not alive(old))


def test_the_driver_of_a_gpu_is_not_forked(place, monkeypatch):
    monkeypatch.setenv(warm.COLD_TRAININGS, "1")
    started, prepared = [], []
    monkeypatch.setattr(forks, "start", lambda *request: started.append(request) or start(place / "absent"))
    monkeypatch.setattr(forks, "prepare", lambda modules, environment: prepared.append(modules))
    for driver, forked in ((place / "no-driver", 1), (place, 1)):
        monkeypatch.setattr(launch, "GPU_DRIVER", driver)
        assert launch._start(place / "absent", 1, "tests.training.toy:Toy").wait() == 1
        launch.prepare({"tests.training.toy:Toy": None})
        assert len(started) == len(prepared) == forked
    assert prepared == [["tests.training.toy"]]


def test_the_time_of_trainings_counts_as_that_of_their_run(tmp_path):
    (tmp_path / "slow.py").write_text("import time\nwhile time.process_time() < 2: pass\n")
    code = """
import os
from pathlib import Path
from tasks.training import forks
print(forks.start(Path("absent"), "slow:Toy", dict(os.environ)).wait())
"""
    path = variables(PYTHONPATH=os.pathsep.join([str(light()), str(tmp_path)]))
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system > 2


def test_libraries_that_cannot_be_imported_are_one_sentence(place):
    (place / "matplotlib.py").write_text("raise SystemExit('broken')\n")
    with pytest.raises(ChildProcessError, match="ended at once, perhaps for want of memory"):
        start(place / "absent", code=Path(f"{place}{os.pathsep}{REPOSITORY}"))


def test_changed_code_is_never_forked(place):
    code = copied(place, "sys.exit(6)")
    assert start(place / "absent", code).wait() == 6
    worker = code / "tasks" / "training" / "worker.py"
    worker.write_text(worker.read_text().replace("sys.exit(6)", "sys.exit(7)"))
    assert start(place / "absent", code).wait() == 7


def test_a_machine_that_has_no_room_for_a_process_ends_no_training(place, monkeypatch):
    """The server of the test is a thread of it, in which forks fail."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    monkeypatch.setattr(os, "fork", lambda: (_ for _ in ()).throw(BlockingIOError(11, "no room")))
    monkeypatch.setattr(forks, "changed", lambda: False)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    forker = forks.Forker(far)
    taking = threading.Thread(target=forker._take)
    taking.start()
    request = {"job": "absent", "module": "tests.training.toy", "folder": str(place), "environment": {}}
    with near, far, pytest.raises(forks.GoneError):
        forks.Forked(near, request)
    taking.join()
    assert not forker._running
