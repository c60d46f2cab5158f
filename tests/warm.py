"""Real processes that begin with everything imported that takes long, so that tests which start many need not wait.

One server imports the libraries and all pipelines, and forks for everybody who asks. What it forks is a process like
any other: it has its own arguments, environment, folder, session and exit status, and it can be killed. Trainings that
it starts are forked too, unless `COLD_TRAININGS` is in its environment.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import Any

import matplotlib

from tasks import code

REPOSITORY = Path(__file__).parent.parent
LIBRARIES = (
    "aiohttp", "cv2", "matplotlib.backends.backend_agg", "matplotlib.figure", "netCDF4", "optuna", "pyarrow.parquet",
    "pydantic", "rasterio", "rich.progress", "rouge_score.rouge_scorer", "sacrebleu", "scipy.ndimage", "simplejpeg",
    "torch", "torch.distributed.checkpoint", "transformers.modeling_layers", "transformers.models.auto.modeling_auto",
    "typer", "xarray", "zarr", "flows.commands.cli", "flows.runner", "flows.image_text", "flows.trm_vlm",
    "flows.weather", "flows.wildfire", "tasks.training.live", "tasks.training.loop", "tasks.training.publish",
    "tasks.training.tracking",
)  # fmt: skip
AVAILABLE = sys.platform == "linux"
PARENT = os.getppid()  # as it was at first: an orphan has another one
OWNER = "MILLRACE_TESTS_OWNER"  # process id of the test run whose server forks
COLD_TRAININGS = "MILLRACE_TESTS_COLD_TRAININGS"
KILL = "MILLRACE_TESTS_KILL"  # an order of `tests.kills.trap`
PRELOAD = "MILLRACE_TESTS_PRELOAD"  # further libraries that the server imports, with commas between them


class WarmProcess:
    """A forked process, with as much of `subprocess.Popen` as tests need.

    What it writes is in `communicate`; or it comes line by line from `stdout`, errors too, if the process is `heard`,
    which then ends when whoever started it ends.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], cwd: Path, heard: bool = False
    ) -> None:
        self.returncode: int | None = None
        self._said = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        ear, mouth = os.pipe()
        self.stdout = os.fdopen(ear)
        self._server = connect()
        asked = {
            "module": module, "arguments": arguments, "environment": {**environment, OWNER: str(owner())},
            "cwd": str(cwd), "tied": heard,
        }  # fmt: skip
        outputs = [mouth, mouth] if heard else [file.fileno() for file in self._said]
        socket.send_fds(self._server, [json.dumps(asked).encode()], outputs)
        os.close(mouth)
        self.pid = int(self._server.recv(20) or self._lost())

    def poll(self) -> int | None:
        """Return the exit status, if there is one."""
        with contextlib.suppress(BlockingIOError):
            return self._end(socket.MSG_DONTWAIT)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit status, negative for a signal."""
        self._server.settimeout(timeout)
        try:
            return self._end()
        finally:
            self._server.settimeout(None)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; return what was written to standard output and standard error."""
        self.wait(timeout)
        for file in self._said:
            file.seek(0)
        output, errors = (file.read() for file in self._said)
        return output, errors

    def kill(self) -> None:
        """End the process as `kill -9` does."""
        os.kill(self.pid, signal.SIGKILL)

    def _end(self, flags: int = 0) -> int:
        if self.returncode is None:
            self.returncode = int(self._server.recv(20, flags) or self._lost())
        return self.returncode

    def _lost(self) -> str:
        raise RuntimeError("the server of warm processes ended")


Process = WarmProcess | subprocess.Popen[str]


def start(module: str, *arguments: str, cwd: Path = REPOSITORY, **environment: str) -> Process:
    """Start `python -m module` in a process and session of its own, with more variables in its environment."""
    variables = os.environ | environment
    if AVAILABLE:
        return WarmProcess(module, arguments, variables, cwd)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, cwd=cwd, env=variables, start_new_session=True, **pipes)


def connect() -> socket.socket:
    """Return a connection to the server of this test run, which the first one to ask starts."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    started, deadline = False, time.monotonic() + 400
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            connection.connect(name_of(owner()))
            return connection
        if not started:
            command = [sys.executable, "-m", "tests.warm", str(owner())]
            subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, start_new_session=True)
            started = True
        assert time.monotonic() < deadline, "the server of warm processes does not start"
        time.sleep(0.02)


def owner() -> int:
    """Return the process id of the test run that this process belongs to."""
    if OWNER in os.environ:
        return int(os.environ[OWNER])
    return PARENT if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()


def name_of(owner: int) -> str:
    return f"\0millrace-tests-{os.getuid()}-{owner}"


def forget_power_cuts() -> None:
    """Let this process and its forks flush nothing to the disk: files outlive a kill without, and it takes a while."""
    os.fsync = lambda descriptor: None


def remember_code() -> None:
    """Let this process and its forks take a module's code apart once, and not for every new root."""
    if not hasattr(code._facts, "cache_info"):
        code._facts = cache(code._facts)


def draw_coarsely() -> None:
    """Let this process and its forks draw few pixels, without ticks and their numbers: a picture takes a third."""
    from matplotlib.figure import Figure

    for axis, side in (("xtick", "bottom"), ("ytick", "left")):
        matplotlib.rcParams |= {f"{axis}.{side}": False, f"{axis}.label{side}": False}
    save = Figure.savefig
    if not hasattr(save, "__wrapped__"):
        Figure.savefig = wraps(save)(lambda *to, **how: save(*to, **how | {"dpi": 30}))


def serve(owner: int) -> None:
    """Fork for whoever connects, as long as a process lives."""
    forget_power_cuts()
    remember_code()
    draw_coarsely()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(name_of(owner))
    except OSError:
        return  # another one was quicker
    listener.listen(100)
    for name in (*LIBRARIES, *filter(None, os.environ.get(PRELOAD, "").split(","))):
        importlib.import_module(name)
    for package in code.PACKAGES:
        for module in (REPOSITORY / package).rglob("*.py"):
            code._facts(module.read_bytes())
    for finaliser in weakref.finalize._registry.values():
        finaliser.atexit = False  # taking libraries apart lasts longer than many a command
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    if asked := Forks(listener).serve(owner):
        become(asked)


class Forks:
    """What the server has forked, until each has ended."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._running: dict[int, tuple[int, socket.socket, bool]] = {}
        """By the descriptor of each process its number, the line to whoever asked, and whether it ends with that."""

    def serve(self, owner: int) -> dict[str, Any] | None:
        """Fork for whoever connects, as long as a process lives; return what is asked for, in the fork alone."""
        while Path(f"/proc/{owner}").exists() or self._running:
            ears = {line.fileno(): child for child, (_, line, tied) in self._running.items() if tied}
            heard = select.select([self._listener, *self._running, *ears], [], [], 1)[0]
            for ear in heard:
                if ear in ears and ears[ear] not in heard:
                    os.kill(self._running[ears[ear]][0], signal.SIGKILL)
                    self._tell_end(ears[ear])
                elif ear in self._running:
                    self._tell_end(ear)
            if self._listener in heard and (asked := self._take()):
                return asked
        return None

    def _tell_end(self, child: int) -> None:
        pid, line, _ = self._running.pop(child)
        os.close(child)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with line, contextlib.suppress(OSError):
            line.send(str(status).encode())

    def _take(self) -> dict[str, Any] | None:
        line, _ = self._listener.accept()
        line.setblocking(True)
        message, files, _, _ = socket.recv_fds(line, 1 << 20, 2)
        if not message:
            line.close()
            return None
        asked = json.loads(message)
        if pid := os.fork():
            for file in files:
                os.close(file)
            line.send(str(pid).encode())
            self._running[os.pidfd_open(pid)] = pid, line, asked["tied"]
            return None
        for each in (self._listener, line, *(other for _, other, _ in self._running.values())):
            each.close()
        for child in self._running:
            os.close(child)
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for place, file in enumerate([os.open(os.devnull, os.O_RDONLY), *files]):
            os.dup2(file, place)
            os.close(file)
        return asked


def become(asked: Mapping[str, Any]) -> None:
    """Be the process that is asked for, to its end."""
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["cwd"])
    sys.argv = [asked["module"], *asked["arguments"]]
    if COLD_TRAININGS not in os.environ:
        start_trainings_warm()
    if KILL in os.environ:
        importlib.import_module("tests.kills.trap").obey()
    os._exit(run(asked["module"]))


def start_trainings_warm() -> None:
    """Let stages of this process fork their training processes from now on; those of several ranks start as ever."""
    from tasks.training import launch

    start_cold, prepare_cold = launch._start, launch.prepare

    def start(job: Path, ranks: int, objective: str) -> Any:
        if ranks > 1 or COLD_TRAININGS in os.environ:
            return start_cold(job, ranks, objective)
        return WarmProcess("tests.warm_training", [str(job)], os.environ, REPOSITORY, heard=True)

    def prepare(needed: Iterable[str]) -> None:
        if COLD_TRAININGS in os.environ:
            prepare_cold(needed)

    launch._start, launch.prepare = start, prepare


def run(module: str) -> int:
    """Run a module as the interpreter does, up to its exit handlers; return the status."""
    status: object = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status if isinstance(status, int) else 1


if __name__ == "__main__":
    serve(int(sys.argv[1]))
