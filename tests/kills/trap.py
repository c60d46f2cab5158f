"""What kills a process at its n-th file operation in a stage: an audit hook, set by an environment variable.

An operation is whatever Python tells its audit hooks of a path below the root that changes something there, and every
look into the workspace, which is where files lie that libraries have written by themselves.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pydantic import BaseModel

from tasks import stage, units
from tests import warm

Process = Literal["main", "worker", "training"]
PROCESSES: tuple[Process, ...] = get_args(Process)


class Order(BaseModel):
    """Which process of a run is to be killed, in which stage, and when."""

    root: str
    stage: str
    """Its title."""
    process: Process = "main"
    at: int = 0
    """The operation before which the process dies; 0 lets it live."""
    notes: str
    """A file that gets a line for every operation; processes of the run hold a shared lock on it while they live."""


class Paths(NamedTuple):
    """Where an audit event's arguments say which paths it is about."""

    paths: tuple[int, ...]
    folders: tuple[int, ...] = ()
    """Descriptors of the folders that the paths are relative to."""


WRITES = {
    "os.rename": Paths((0, 1), (2, 3)), "os.link": Paths((0, 1), (2, 3)), "os.symlink": Paths((1,)),
    "os.remove": Paths((0,), (1,)), "os.rmdir": Paths((0,), (1,)), "os.mkdir": Paths((0,), (2,)),
    "os.chmod": Paths((0,), (2,)), "os.utime": Paths((0,), (3,)), "os.truncate": Paths((0,)),
    "shutil.copyfile": Paths((1,)), "shutil.move": Paths((0, 1)), "shutil.rmtree": Paths((0,)),
    "sqlite3.connect": Paths((0,)),
}  # fmt: skip
LOOKS = {"os.scandir": Paths((0,)), "os.listdir": Paths((0,))}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Trap:
    """The hook of this process; it counts while `on`."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.on = False
        self._count = 0
        self._notes = os.open(order.notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        fcntl.flock(self._notes, fcntl.LOCK_SH)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count an operation of the stage, and end the process at the one that was ordered."""
        if not self.on or not (event == "open" or event in WRITES or event in LOOKS):
            return
        if not self._counts(event, arguments):
            return
        self._count += 1
        last = self._count == self.order.at
        os.write(self._notes, f"{self._count} {event} {arguments[0]}{' killed' * last}\n".encode())
        if last:
            os.kill(os.getpid(), signal.SIGKILL)

    def _counts(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            writes, where = bool(arguments[2] & WRITING), Paths((0,))
        else:
            writes, where = event in WRITES, WRITES.get(event) or LOOKS[event]
        below = [path for path in _paths(where, arguments) if path.startswith(self.order.root + os.sep)]
        return bool(below) if writes else any(".partial" in path for path in below)


def _paths(where: Paths, arguments: tuple[Any, ...]) -> Iterator[str]:
    folders = [arguments[place] for place in where.folders] or [-1]
    for number, place in enumerate(where.paths):
        path = arguments[place]
        if not isinstance(path, str | bytes | os.PathLike):
            continue
        folder = folders[min(number, len(folders) - 1)]
        base = Path(f"/proc/self/fd/{folder}").readlink() if isinstance(folder, int) and folder >= 0 else Path()
        yield str(base / os.fsdecode(path))


def obey() -> None:
    """Set the trap that the environment orders, for this process and for workers that it forks."""
    trap = Trap(Order.model_validate_json(os.environ[warm.KILL]))
    sys.addaudithook(trap)
    trap.on = trap.order.process == "training" and sys.argv[0] == "tests.warm_training"
    execute = stage.Stage.execute

    def watched(self: stage.Stage, session: Any, arguments: Any) -> Any:
        if self.title(arguments) != trap.order.stage:
            return execute(self, session, arguments)
        trap.on = trap.order.process == "main"
        try:
            return execute(self, session, arguments)
        finally:
            trap.on = False

    stage.Stage.execute = watched  # type: ignore[method-assign]
    units.multiprocessing = _Forking(trap)  # type: ignore[assignment]


class _Forking:
    """Stands for `multiprocessing` in `tasks.units`: its workers are forked, so that they start warm and trapped."""

    def __init__(self, trap: Trap) -> None:
        self._trap = trap

    def get_context(self, method: str) -> Any:
        assert method == "spawn"
        os.register_at_fork(after_in_child=self._arm)
        return multiprocessing.get_context("fork")

    def _arm(self) -> None:
        self._trap.on = self._trap.order.process == "worker"
