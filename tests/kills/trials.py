"""Kills of one stage: how many operations it has, which of them are tried, and what came of each."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tests import warm
from tests.command import millrace
from tests.kills.roots import Calm, faults
from tests.kills.trap import PROCESSES, Order, Process


class Place(BaseModel):
    """Where a process is killed: in which stage of which pipeline, by which engine."""

    model_config = ConfigDict(frozen=True)

    pipeline: str
    stage: str
    engine: str
    process: Process

    def __str__(self) -> str:
        return f"{self.pipeline}: {self.stage}, {self.engine}, {self.process}"


class Trial(BaseModel):
    """What came of one kill."""

    at: int
    """The operation before which the process died."""
    operation: str = ""
    """What it was; empty where the process ended before."""
    faults: list[str] = []

    @property
    def lost(self) -> bool:
        """Whether the root did not come out as if nobody had disturbed it."""
        return bool(self.faults)


def run_trial(calm: Calm, place: Place, at: int) -> tuple[Trial, int]:
    """Kill a run at an operation, run to the end, and compare; return the operations until then, too."""
    asset = calm.stages[place.stage]
    with tempfile.TemporaryDirectory(prefix="kill-", dir=calm.root.parent) as folder:
        root, notes = Path(folder) / "root", Path(folder) / "notes"
        calm.copy(root, without=asset)
        order = Order(root=str(root), stage=place.stage, process=place.process, at=at, notes=str(notes))
        command = calm.command(place.engine, "2" if place.process == "worker" else "inline")
        first = millrace(*command, root=root, **{warm.KILL: order.model_dump_json()})
        lines = _notes_of_the_dead(notes)
        killed = next((line for line in lines if line.endswith(" killed")), "")
        trial = Trial(at=at, operation=killed.removesuffix(" killed").partition(" ")[2].replace(str(root), "ROOT"))
        if bool(killed) == (first.returncode == 0):
            trial.faults = [f"the killed run ended with status {first.returncode}: {_last_line(first.stderr)}"]
        else:
            trial.faults = _go_on(calm, place, root, asset)
        return trial, max((int(line.split()[0]) for line in lines), default=0)


def _go_on(calm: Calm, place: Place, root: Path, asset: str) -> list[str]:
    second = millrace(*calm.command(place.engine), root=root)
    if second.returncode:
        return [f"the next run ended with status {second.returncode}: {_last_line(second.stderr)}"]
    return faults(root, calm, asset)


def _notes_of_the_dead(notes: Path) -> list[str]:
    """Return the operations, as soon as no process of the run lives any more."""
    with notes.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        return file.read().splitlines()


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:500]


def places(calm: Calm, engines: Iterable[str]) -> Iterator[Place]:
    """Yield every place in a pipeline where a process can be killed."""
    for stage in calm.stages:
        for engine in engines:
            for process in PROCESSES:
                yield Place(pipeline=calm.name, stage=stage, engine=engine, process=process)


def spread(count: int) -> list[int]:
    """Return the numbers from 1 to `count` so that however many are taken from the front lie far apart.

    >>> spread(8)
    [8, 4, 2, 6, 1, 5, 3, 7]
    """
    bits = count.bit_length()
    return sorted(range(1, count + 1), key=lambda number: f"{number:0{bits}b}"[::-1])
