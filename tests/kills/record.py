"""Results of kills, a file for each pipeline, kept as long as the code stays, so that a run goes on where it ended."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import BaseModel

from storage.files import write_atomic
from tests.conftest import REPOSITORY
from tests.kills.roots import Calm
from tests.kills.trials import Place, Trial, run_trial, spread


class Found(BaseModel):
    """What was found at one place."""

    place: Place
    operations: int
    """Of an undisturbed run."""
    trials: list[Trial] = []


class Record(BaseModel):
    """What was found in one pipeline."""

    code: str
    found: list[Found] = []

    def at(self, place: Place) -> Found | None:
        """Return what was found at a place, if anything was tried there."""
        return next((found for found in self.found if found.place == place), None)


def code_digest() -> str:
    """Return the digest of all product code."""
    tops = ("configs", "flows", "models", "storage", "tasks")
    paths = sorted(path for top in tops for path in (REPOSITORY / top).rglob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:12]


class Kills:
    """The kills of one pipeline."""

    def __init__(self, name: str, work: Path, say: Callable[[str], None]) -> None:
        code = code_digest()
        for old in work.glob(f"{name}-*"):
            if old.name != f"{name}-{code}":
                shutil.rmtree(old)
        self.calm = Calm(name, work / f"{name}-{code}")
        self._path, self._say = work / f"{name}.json", say
        known = load(self._path)
        self.record = known if known and known.code == code else Record(code=code)

    def run(self, place: Place, most: int) -> None:
        """Kill at so many operations of a place, as far as that was not done."""
        inline = self.record.at(place.model_copy(update={"engine": "inline"}))
        if inline and not inline.operations:
            return  # the stage has no such process, by whatever engine
        found = self.record.at(place)
        if found is None:
            calm, operations = run_trial(self.calm, place, at=0)
            if calm.lost:
                raise RuntimeError(f"{place}: a run without a kill came out otherwise: {calm.faults}")
            found = Found(place=place, operations=operations)
            self.record.found.append(found)
        done = {trial.at for trial in found.trials}
        for at in spread(found.operations)[:most]:
            if at not in done:
                self.kill(found, at)
        self._save()

    def kill(self, found: Found, at: int) -> None:
        """Kill once."""
        trial, _ = run_trial(self.calm, found.place, at)
        found.trials.append(trial)
        self._save()
        fate = "LOST" if trial.lost else "survived" if trial.operation else "ended before"
        self._say(f"{found.place} {at}/{found.operations}: {fate} {trial.operation}")

    def _save(self) -> None:
        write_atomic(self._path, self.record.model_dump_json())


def load(path: Path) -> Record | None:
    """Return the record in a file."""
    return Record.model_validate_json(path.read_bytes()) if path.exists() else None


def tally(records: Iterable[Record]) -> dict[str, object]:
    """Count kills, by place and in all; a process that ended before its kill came counts as nothing."""
    rows = []
    for found in (found for record in records for found in record.found if found.operations):
        killed = [trial for trial in found.trials if trial.operation or trial.lost]
        lost = [trial for trial in killed if trial.lost]
        rows.append({
            **found.place.model_dump(), "operations": found.operations, "survived": len(killed) - len(lost),
            "lost": [trial.model_dump() for trial in lost],
        })  # fmt: skip
    return {
        "places": rows,
        "survived": sum(row["survived"] for row in rows),
        "lost": sum(len(row["lost"]) for row in rows),
    }


def text(counts: dict) -> str:
    """Return the table, and how to repeat every kill that was lost."""
    lines = [f"{'pipeline':9} {'stage':30} {'engine':8} {'process':9} {'operations':>10} {'survived':>8} {'lost':>5}"]
    for row in counts["places"]:
        lines.append(
            f"{row['pipeline']:9} {row['stage']:30} {row['engine']:8} {row['process']:9} {row['operations']:10} "
            f"{row['survived']:8} {len(row['lost']):5}"
        )
    lines.append(f"{counts['survived']} kills were survived, {counts['lost']} were not")
    for row in counts["places"]:
        for trial in row["lost"]:
            where = f"{row['pipeline']} --stage {json.dumps(row['stage'])} --engine {row['engine']}"
            again = f"python -m tests.kills {where} --process {row['process']} --at {trial['at']}"
            lines.append(f"\n{again}   # {trial['operation']}")
            lines += [f"  {fault}" for fault in trial["faults"]]
    return "\n".join(lines)
