"""The session of one module: its faults, what became of each, and where to go on after a kill."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkItem, WorkResult

from tests.mutants.faults import changed_line, faults_of, mutated
from tests.mutants.forks import Fault, Outcome, preload, run_forked
from tests.mutants.judges import Judged


@dataclass(frozen=True)
class Row:
    """A fault and what became of it."""

    module: str
    definition: str
    line: int
    operator: str
    before: str
    after: str
    killed: bool
    by: str


class Session:
    """Faults of one module in a Cosmic Ray session, kept in a folder."""

    def __init__(self, judged: Judged, folder: Path) -> None:
        self.judged = judged
        self.source = Path(judged.module).read_text()
        self._path = folder / f"{judged.name}.sqlite"
        self._notes = folder / f"{judged.name}.json"

    def faults(self, most: int | None) -> list[WorkItem]:
        """Return the faults in the order of their ids, which is as good as random and always the same."""
        return faults_of(self.source, self.judged.module, self.judged.only)[:most]

    def prepare(self, *, afresh: bool = False) -> None:
        """Bring the session up to date: where the module changed all results go, where its tests did, the survivors."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        now = {"module": digest([self.judged.module]), "tests": digest(self.judged.files())}
        before = json.loads(self._notes.read_text()) if self._notes.exists() else {}
        with use_db(str(self._path)) as db:
            kept = {} if afresh or before.get("module") != now["module"] else dict(db.results)
            if before.get("tests") != now["tests"]:
                kept = {k: result for k, result in kept.items() if result.test_outcome != TestOutcome.SURVIVED}
            db.clear()
            items = self.faults(None)
            db.add_work_items(items)
            for item in items:
                if item.job_id in kept:
                    db.set_result(item.job_id, kept[item.job_id])
        self._notes.write_text(json.dumps(now))

    def run(self, most: int | None, say: Callable[[str], None]) -> None:
        """Run what has no result yet; `RuntimeError` where the tests fail without a fault."""
        with use_db(str(self._path)) as db:
            done = {job for job, _ in db.results}
            waiting = [item for item in self.faults(most) if item.job_id not in done]
            if not waiting:
                return
            limit = self._start(say)
            for number, item in enumerate(waiting, 1):
                begin = time.monotonic()
                result = self._judge(item, limit)
                db.set_result(item.job_id, result)
                say(f"{number}/{len(waiting)} {result.test_outcome.value} in {time.monotonic() - begin:.1f} s")

    def _start(self, say: Callable[[str], None]) -> float:
        """Load what the tests load, see them pass, and return how long they may take."""
        first = run_forked(self.judged.arguments, 900, ask=True)
        preload(first.loaded, self.judged.module)
        again = run_forked(self.judged.arguments, 900)
        if again.code != 0:
            raise RuntimeError(f"{self.judged.module}: its tests fail without a fault: {again.failed or again.code}")
        say(f"tests take {first.seconds:.1f} s alone and {again.seconds:.1f} s in a fork")
        return 30 + 6 * again.seconds

    def _judge(self, item: WorkItem, limit: float) -> WorkResult:
        text = mutated(self.source, item)
        found = run_forked(self.judged.arguments, limit, Fault(self.judged.module, text))
        outcome = TestOutcome.SURVIVED if found.code == 0 else TestOutcome.KILLED
        lines = json.dumps(changed_line(self.source, text))
        return WorkResult(WorkerOutcome.NORMAL, output=_killer(found), test_outcome=outcome, diff=lines)

    def rows(self, most: int | None = None) -> Iterator[Row]:
        """Return the faults that have a result."""
        if not self._path.exists():
            return
        chosen = {item.job_id for item in self.faults(most)}
        with use_db(str(self._path), WorkDB.Mode.open) as db:
            for item, result in db.completed_work_items:
                if item.job_id in chosen:
                    yield _row(item, result)


def _killer(found: Outcome) -> str:
    if found.code is None:
        return "time ran out"
    return found.failed or ("" if found.code == 0 else f"the tests could not be loaded (exit code {found.code})")


def _row(item: WorkItem, result: WorkResult) -> Row:
    (change,) = item.mutations
    before, after = json.loads(result.diff or '["", ""]')
    killed = result.test_outcome != TestOutcome.SURVIVED
    return Row(
        change.module_path.as_posix(), change.definition_name or "", change.start_pos[0],
        change.operator_name.removeprefix("core/"), before, after, killed, result.output or "",
    )  # fmt: skip


def digest(paths: list[str]) -> str:
    """Return the digest of files' contents."""
    return hashlib.sha256(b"\0".join(Path(path).read_bytes() for path in paths)).hexdigest()


def run_module(judged: Judged, folder: Path, most: int | None, afresh: bool) -> None:
    """Run a module's session to its end, in a process of its own that has loaded nothing yet."""
    sys.dont_write_bytecode = False  # every fork would compile what it imports; the faulty module never leaves any
    session = Session(judged, folder)
    session.prepare(afresh=afresh)
    session.run(most, lambda text: print(f"{judged.name}: {text}", flush=True))
