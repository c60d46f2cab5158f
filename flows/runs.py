"""Run records: what ran when, in which process, how it ended, and which assets it leads to.

They are kept in the root, on an object store too, so that all machines see the same. What the newest runs lead to is
what `gc` keeps. A record goes after `MOST_DAYS`, unless it is the newest of its pipeline and profile.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import BaseModel, ValidationError

from storage.assets import Asset, AssetStore
from storage.files import is_writable
from storage.manifest import now
from storage.raw import RawInput
from tasks.session import Outcome, Session

RUNS = ".runs"
MOST_DAYS = 90
MOST_NOT_USED = 20
"""Files that a record names of those that were found and not used."""
TIME_IN_ID = "%Y%m%d-%H%M%S"

RunState = Literal["Running", "Completed", "Failed", "Cancelled", "Crashed"]
INTERRUPTED = "it was interrupted; what was finished is kept, and the next run goes on"


class StageRecord(BaseModel):
    """One stage of a run."""

    stage: str
    status: str
    reason: str
    asset: str
    seconds: float


class RawRecord(BaseModel):
    """Raw files that a run read."""

    name: str
    fingerprint: str
    files: int
    size: int
    not_used: int = 0
    """How much was found beside the files and not used."""
    first_not_used: list[str] = []
    """The first of it, each with its reason."""


class RunRecord(BaseModel):
    """One run of a pipeline."""

    id: str
    pipeline: str
    profile: str
    config: dict[str, Any]
    engine: str
    host: str
    pid: int
    process_started: float
    started: datetime
    ended: datetime | None = None
    state: RunState = "Running"
    message: str = ""
    inputs: list[RawRecord] = []
    stages: list[StageRecord] = []
    leads_to: list[str] = []
    """The assets of all stages that the run has come to, `kind/key`, each noted before any work on it."""
    flow_run_id: str | None = None

    @classmethod
    def begin(cls, pipeline: str, profile: str, config: dict[str, Any], engine: str) -> RunRecord:
        """Start the record of a run in this process."""
        time = datetime.now(UTC)
        return cls(
            id=_new_id(time),
            pipeline=pipeline,
            profile=profile,
            config=config,
            engine=engine,
            host=socket.gethostname(),
            pid=os.getpid(),
            process_started=psutil.Process().create_time(),
            started=time.replace(microsecond=0),
        )

    @property
    def cause(self) -> str:
        """The pipeline and profile, for people."""
        return f"{self.pipeline}/{Path(self.profile).name}" if self.profile else self.pipeline

    def assets(self) -> set[str]:
        """Return the names of all assets that the run leads to; older records have only those of finished stages."""
        return {*self.leads_to, *(stage.asset for stage in self.stages if stage.asset)}

    def save(self, store: AssetStore) -> None:
        """Write the record, where the root is not read-only."""
        if is_writable(store.root):
            store.write_note(RUNS, f"{self.id}.json", self.model_dump_json(indent=1))

    def end(self, store: AssetStore, state: RunState, message: str = "") -> None:
        """Close the record."""
        self.state, self.message, self.ended = state, message, now()
        self.save(store)

    def is_younger(self, age: timedelta) -> bool:
        """Whether the run ended less than an age ago, or goes on."""
        if self.state == "Running" and not self.is_orphan():
            return True
        return (self.ended or self.started) > now() - age

    def is_orphan(self) -> bool:
        """Whether the run says Running while its process on this machine is gone."""
        if self.state != "Running" or self.host != socket.gethostname():
            return False
        try:
            return abs(psutil.Process(self.pid).create_time() - self.process_started) > 1
        except psutil.NoSuchProcess:
            return True


def _new_id(time: datetime) -> str:
    """Return a name that sorts by time, to a quarter of a millisecond, and is nobody else's."""
    return f"{time:{TIME_IN_ID}}-{time.microsecond * 4096 // 1_000_000:03x}{secrets.randbelow(4096):03x}"


_running: dict[str, tuple[RunRecord, AssetStore]] = {}
"""Runs of this process."""


def cancel_own_runs() -> None:
    """Close the records of runs of this process, which is about to end, whose threads could not do so themselves."""
    for record, store in list(_running.values()):
        record.end(store, "Cancelled", INTERRUPTED)


def load_runs(store: AssetStore) -> list[RunRecord]:
    """Return all run records, newest first."""
    return [_parse(store, name, text) for name, text in reversed(store.notes(RUNS).items()) if name.endswith(".json")]


def _parse(store: AssetStore, name: str, text: str) -> RunRecord:
    try:
        return RunRecord.model_validate_json(text)
    except ValidationError:
        raise ValueError(
            f"{store.name}/{RUNS}/{name} is no run record that this version understands; bring Millrace up to date, or "
            "delete the file: gc then knows nothing of what that run made"
        ) from None


def newest_runs(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return, of records with the newest first, each pipeline and profile's newest, and its newest that finished."""
    newest: dict[tuple[str, str, bool], RunRecord] = {}
    for record in records:
        newest.setdefault((record.pipeline, record.profile, False), record)
        if record.state == "Completed":
            newest.setdefault((record.pipeline, record.profile, True), record)
    return list({record.id: record for record in newest.values()}.values())


def prune_runs(store: AssetStore) -> None:
    """Delete records that are so old that nobody counts on them."""
    oldest = f"{now() - timedelta(days=MOST_DAYS):{TIME_IN_ID}}"
    if not any(name < oldest for name in store.note_names(RUNS)):
        return
    records = load_runs(store)
    kept = {record.id for record in newest_runs(records)}
    store.remove_notes(RUNS, [f"{r.id}.json" for r in records if r.id < oldest and r.id not in kept])


@contextlib.contextmanager
def recorded(session: Session, record: RunRecord) -> Iterator[RunRecord]:
    """Make a session active, and keep the record of what it reads, comes to and makes in its store."""
    store = session.store

    def read(raw: RawInput) -> None:
        size = sum(file.size for file in raw.files)
        record.inputs.append(
            RawRecord(
                name=raw.name,
                fingerprint=raw.fingerprint,
                files=len(raw.files),
                size=size,
                not_used=len(raw.passed),
                first_not_used=list(raw.passed[:MOST_NOT_USED]),
            )
        )

    def hold(asset: Asset) -> None:
        record.leads_to.append(asset.name)
        record.save(store)

    def note(outcome: Outcome) -> None:
        record.stages.append(
            StageRecord(
                stage=outcome.stage,
                status=outcome.label,
                reason=outcome.reason,
                asset=outcome.asset.name if outcome.asset else "",
                seconds=round(outcome.seconds, 3),
            )
        )
        record.save(store)

    session.on_raw, session.on_hold, session.on_outcome = read, hold, note
    record.save(store)
    if is_writable(store.root):
        store.share_notes(RUNS)
        prune_runs(store)
    _running[record.id] = record, store
    try:
        with session.active():
            yield record
    except Exception as error:
        with contextlib.suppress(OSError):  # the disk may be full
            record.end(store, "Failed", f"{type(error).__name__}: {error}")
        raise
    except BaseException:  # Ctrl-C, SIGTERM, or Prefect's word for a cancellation
        record.end(store, "Cancelled", INTERRUPTED)
        raise
    finally:
        del _running[record.id]
    record.end(store, "Completed")
