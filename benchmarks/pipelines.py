"""Stages and whole pipelines, run as a part of a benchmark."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from configs.base import Config
from flows.runs import RunRecord
from storage.assets import AssetStore
from tasks.progress import Silent
from tasks.session import Session
from tasks.units import Workers


@contextmanager
def session(root: Path, workers: str = "2") -> Iterator[AssetStore]:
    """Let stages run in this process, with their assets below `root`."""
    store = AssetStore(root)
    with Session(store, Silent(), workers=Workers.parse(workers)).active():
        yield store


def asset_root(bench: Bench, variable: str) -> Path:
    """Return the benchmark's own root, or the one that an environment variable names; `quick` runs have their own."""
    place = "" if bench.quick else os.environ.get(variable, "")
    return Path(place).expanduser().absolute() if place else bench.work / "assets"


def run_pipeline(
    bench: Bench, pipeline: str, config: Config, root: Path, profile: str
) -> tuple[RunRecord, dict[str, Path]]:
    """Run a pipeline; return its record, and the folder of each stage's asset."""
    from flows.pipelines import find_pipeline
    from flows.runner import run

    record = run(find_pipeline(pipeline), config, root, _Teller(bench), profile=profile, workers="2")
    return record, {stage.stage: root / stage.asset for stage in record.stages}


class _Teller:
    """Tells the person who waits which stage works, and what trainings say."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def begins(self, outcome: Any) -> None:
        self._bench.say(f"{outcome.stage}: {outcome.label}, {outcome.reason}")

    def progress(self, stage: str, done: int, total: int, words: str = "") -> None:
        pass

    def message(self, text: str) -> None:
        self._bench.say(text)

    def picture(self, stage: str, name: str, png: bytes) -> None:
        pass

    def ends(self, outcome: Any) -> None:
        self._bench.say(f"{outcome.stage}: done after {outcome.seconds:.0f} s")
