"""Training processes that begin with their libraries imported, which takes an interpreter longer than many a training.

One process imports them and forks for everybody who asks. What it forks is a process like any other, with a session and
an exit status of its own. It dies with whoever asked, and with the process that forked it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import tasks
from tasks.training import worker

IN_KEY = False
LIBRARIES = (
    "matplotlib.backends.backend_agg",
    "pyarrow.dataset",
    "tasks.training.curves",
    "tasks.training.loop",
    "tasks.training.publish",
    "tasks.training.tracking",
)
"""What all trainings need, but for wandb: it makes a temporary folder that the first fork to end would delete."""
IDLE = 300.0
"""Seconds without a training after which the process ends."""
PLACE = str(Path(tasks.__file__).parent.parent)
MOST = 1 << 16
"""Bytes of a request."""


def _can_wait_for_forks() -> bool:
    """Say whether the kernel gives descriptors of processes; older ones, and some sandboxes, do not."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return sys.platform == "linux"


AVAILABLE = _can_wait_for_forks()


class GoneError(Exception):
    """The process that forks has ended, or would fork old code."""


class Forked:
    """A forked training process, with what a launcher needs of `subprocess.Popen`."""

    def __init__(self, server: socket.socket, request: Mapping[str, Any]) -> None:
        ear, mouth = os.pipe()
        self.stdout = os.fdopen(ear, errors="replace")
        self.returncode: int | None = None
        self._line, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            socket.send_fds(server, [json.dumps(request).encode()], [mouth, far.fileno()])
        except OSError:
            raise GoneError from None
        finally:
            os.close(mouth)
            far.close()
        if not self._line.recv(1):
            raise GoneError

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal, if there is one."""
        with suppress(BlockingIOError):
            return self._end(socket.MSG_DONTWAIT)
        return None

    def wait(self) -> int:
        """Wait for the end; return the exit status, negative for a signal."""
        return self._end()

    def kill(self) -> None:
        """End the process as `kill -9` does."""
        with suppress(OSError):
            self._line.shutdown(socket.SHUT_WR)

    def _end(self, flags: int = 0) -> int:
        if self.returncode is None:
            self.returncode = int(self._line.recv(20, flags) or -signal.SIGKILL)
        return self.returncode


class Server:
    """The process that forks, as this one sees it; it begins with libraries, and with modules that are needed too."""

    def __init__(self, environment: Mapping[str, str], modules: Iterable[str] = ()) -> None:
        self._environment = environment
        self._line, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tasks.training.forks", str(far.fileno()), *modules],
                env=environment,
                pass_fds=[far.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the parent's business
            )
        atexit.register(self._end)

    def fork(self, request: Mapping[str, Any], environment: Mapping[str, str]) -> Forked:
        """Return a new process; `GoneError` where there is none to be had from this server.

        Its environment may hold more than that of the server, as libraries set variables of their own when they are
        imported, but what both hold must be the same.
        """
        if any(environment.get(name) != value for name, value in self._environment.items()):
            raise GoneError
        more = {name: value for name, value in environment.items() if name not in self._environment}
        return Forked(self._line, {**request, "environment": more})

    def leave(self) -> None:
        """Ask for no more: the process ends with the last one that it forked."""
        self._line.close()

    def ended(self) -> bool:
        """Say whether the process has ended; if so, it leaves nothing behind."""
        if self._process.poll() is None:
            return False
        atexit.unregister(self._end)
        return True

    def _end(self) -> None:
        """Wait for the process, which ends when nobody can ask any more, so that its time counts as this one's."""
        self.leave()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)


_server: Server | None = None
_left: list[Server] = []
"""Servers that are asked no more, and may not have ended yet."""
_lock = threading.Lock()


def prepare(modules: Iterable[str], environment: Mapping[str, str]) -> None:
    """Begin to import the libraries of trainings, and modules, while there is other work to be done before."""
    global _server
    with _lock:
        if _server is None:
            _server = Server(environment, modules)


def start(job: Path, objective: str, environment: Mapping[str, str]) -> Forked:
    """Start the training that a file describes, with a module imported that it needs.

    Libraries are imported under the environment of the first training; a training under which a variable of it is
    another one, or after the project's code has changed, imports them anew.
    """
    global _server
    module = objective.partition(":")[0]
    request = {"job": str(job), "module": module, "folder": str(Path.cwd())}
    with _lock:
        _left[:] = [server for server in _left if not server.ended()]
        if _server is not None:
            with suppress(GoneError):
                return _server.fork(request, environment)
            _server.leave()
            _left.append(_server)
        _server = Server(environment, [module])
        try:
            return _server.fork(request, environment)
        except GoneError:
            raise ChildProcessError(
                "the process that imports the libraries of trainings ended at once, perhaps for want of memory; what "
                "it said is above: run again to go on from there"
            ) from None


class Request(NamedTuple):
    """What a fork is to do, and where it writes."""

    job: str
    module: str
    folder: str
    environment: dict[str, str]


class Forker:
    """What the process that forks does."""

    def __init__(self, line: socket.socket) -> None:
        self._line, self._number = line, os.getpid()
        self._asked = True
        self._running: dict[int, tuple[int, socket.socket]] = {}
        """By the descriptor of each process its number, and the line to whoever asked for it."""

    def serve(self, modules: Iterable[str]) -> Request:
        """Fork for every request, and return in each fork what was asked for; the server itself never returns."""
        for name in LIBRARIES:
            importlib.import_module(name)
        changed()  # notes how files are now
        for name in modules:
            _import_if_possible(name)
        changed()
        while True:
            ears = [self._line.fileno()] if self._asked else []
            ears += [*self._running, *(line.fileno() for _, line in self._running.values())]
            heard = select.select(ears, [], [], None if self._running else IDLE)[0] if ears else []
            if not heard:
                os._exit(0)  # idle for long, or nobody can ask any more
            for child in heard:
                if child in self._running:
                    self._tell_end(child)
            for pid, line in self._running.values():
                if line.fileno() in heard:  # whoever asked hung up, or is gone
                    os.kill(pid, signal.SIGKILL)
            if self._line.fileno() in heard and (request := self._take()):
                return request

    def _tell_end(self, child: int) -> None:
        pid, line = self._running.pop(child)
        os.close(child)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with line, suppress(OSError):
            line.send(str(status).encode())

    def _take(self) -> Request | None:
        """Fork for the next request, unless the code has changed; return it in the fork alone."""
        message, files, _, _ = socket.recv_fds(self._line, MOST, 2)
        if not message:
            self._asked = False
            return None
        output, line = files[0], socket.socket(fileno=files[1])
        request = Request(**json.loads(message))
        if not self._running:  # while one runs, whoever asked for it may want its end at once
            _import_if_possible(request.module)
        if (pid := None if changed() else _fork()) == 0:
            self._leave(output, line)
            return request
        if pid:
            self._running[os.pidfd_open(pid)] = (pid, line)
            with suppress(OSError):
                line.send(b"+")
        else:
            line.close()
        os.close(output)
        return None

    def _leave(self, output: int, line: socket.socket) -> None:
        """Be a process of one's own: with a session, and an output, and nothing of the server's."""
        for each in (self._line, line, *(other for _, other in self._running.values())):
            each.close()
        for file in self._running:
            os.close(file)
        os.setsid()
        for place in (1, 2):
            os.dup2(output, place)
        os.close(output)
        os.environ[worker.PARENT] = str(self._number)


def _fork() -> int | None:
    """Fork; return the number of the new process, 0 in it, and nothing where the machine has no room for one."""
    gc.freeze()
    try:
        return os.fork()
    except OSError:
        return None


def _import_if_possible(name: str) -> None:
    with suppress(Exception):  # the training itself will say what is wrong
        importlib.import_module(name)


_loaded: dict[str, int] = {}
"""When each file of the project that is imported was last changed."""


def changed() -> bool:
    """Say whether a file of the project is not as it was when it was first looked at, soon after its import."""
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None) or ""
        if path.startswith(PLACE) and "site-packages" not in path:
            try:
                time = Path(path).stat().st_mtime_ns
            except OSError:
                return True
            if _loaded.setdefault(path, time) != time:
                return True
    return False


def main(descriptor: str, *modules: str) -> None:
    """Serve, and train in each fork."""
    request = Forker(socket.socket(fileno=int(descriptor))).serve(modules)
    os.chdir(request.folder)
    os.environ |= request.environment
    sys.argv = [worker.__file__, request.job]
    worker.main(request.job)


if __name__ == "__main__":
    main(*sys.argv[1:])
