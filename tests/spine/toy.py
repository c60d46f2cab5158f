"""A small pipeline whose stages count their work; run as a program it is what the crash tests kill."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import ClassVar

from configs.base import Config
from storage.assets import Asset, AssetStore, Unit
from storage.files import write_atomic
from tasks.progress import Silent
from tasks.session import Session
from tasks.stage import Job, Label, StageResult, stage
from tasks.units import UnitOutput, Workers
from tests.spine import toy_helper


def write_square(folder: Path, unit: Unit) -> UnitOutput:
    """Write one number's square; leave a trace of having worked outside the asset."""
    number, pause = unit.payload, float(os.environ.get("TOY_PAUSE", "0"))
    if log := os.environ.get("TOY_LOG"):
        with Path(log).open("a") as file:
            file.write(f"{unit.id}\n")
    if unit.id == os.environ.get("TOY_SUICIDE"):
        os.kill(os.getpid(), signal.SIGKILL)
    name = f"squares/{unit.id}.txt"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for _ in range(50):
            file.write(f"{toy_helper.square(number)}\n")
            file.flush()
            time.sleep(pause / 50)
    return UnitOutput([name], {"square": toy_helper.square(number)})


@stage("squares")
def squares(job: Job, *, count: int, first: int) -> StageResult:
    """Squares of consecutive numbers, one unit each."""
    units = [job.unit(f"n{n}", n, n) for n in range(first, first + count)]
    records = job.map(write_square, units)
    write_atomic(job.folder / "index.txt", "\n".join(r.id for r in records))
    return StageResult(counts={"numbers": len(records)})


@stage("total")
def total(job: Job, *, numbers: Asset, modulus: int) -> StageResult:
    """Sum of the squares, modulo something, so that different inputs may give equal output."""
    values = [int(p.read_text().split()[0]) for p in (numbers.folder / "squares").glob("*.txt")]
    write_atomic(job.folder / "total.txt", str(sum(values) % modulus))
    return StageResult(metrics={"total": sum(values) % modulus})


class Speed(Config):
    """How the work is done; it changes nothing about the result."""

    IN_KEY: ClassVar[bool] = False

    pause: float = 0.0


@stage("copies")
def copies(job: Job, *, value: Asset, speed: Speed, label: Label) -> StageResult:
    """A copy of the total, made at some speed and called something."""
    time.sleep(speed.pause)
    write_atomic(job.folder / "copy.txt", (value.folder / "total.txt").read_bytes())
    return StageResult()


@stage("label")
def label(job: Job, *, value: Asset, text: str) -> StageResult:
    """A file made of the total and a text."""
    write_atomic(job.folder / "label.txt", f"{text} {(value.folder / 'total.txt').read_text()}")
    return StageResult()


def main(root: str, workers: str, count: int) -> None:
    """Run the squares stage as a person would, in a process of its own."""
    session = Session(AssetStore(Path(root)), Silent(), workers=Workers.parse(workers))
    with session.active():
        asset = squares(count=count, first=0)
    print(session.outcomes[0].label, asset.fingerprint)


if __name__ == "__main__":
    from tests.spine import toy  # so that spawned workers find the functions under their full name

    toy.main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
