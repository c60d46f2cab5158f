"""Run records: what ran when, in which process, and how it ended. Kept beside the assets, readable without a server."""

from __future__ import annotations

import os
import secrets
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import BaseModel

from storage.assets import now
from storage.files import is_writable, write_atomic

RunState = Literal["Running", "Completed", "Failed", "Cancelled", "Crashed"]
INTERRUPTED = "it was interrupted; what was finished is kept, and the next run goes on"


class StageRecord(BaseModel):
    """One stage of a run."""

    stage: str
    status: str
    reason: str
    asset: str
    seconds: float


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
    stages: list[StageRecord] = []
    flow_run_id: str | None = None

    @classmethod
    def begin(cls, pipeline: str, profile: str, config: dict[str, Any], engine: str) -> RunRecord:
        """Start the record of a run in this process."""
        return cls(
            id=f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
            pipeline=pipeline,
            profile=profile,
            config=config,
            engine=engine,
            host=socket.gethostname(),
            pid=os.getpid(),
            process_started=psutil.Process().create_time(),
            started=now(),
        )

    def save(self, root: Path) -> None:
        """Write the record, where the root is not read-only."""
        if not is_writable(root):
            return
        write_atomic(root / ".runs" / f"{self.id}.json", self.model_dump_json(indent=1))

    def end(self, root: Path, state: RunState, message: str = "") -> None:
        """Close the record."""
        self.state, self.message, self.ended = state, message, now()
        self.save(root)

    def is_own(self) -> bool:
        """Whether the run is one of this process."""
        started = psutil.Process().create_time()
        return (self.host, self.pid) == (socket.gethostname(), os.getpid()) and self.process_started == started

    def is_orphan(self) -> bool:
        """Whether the run says Running while its process on this machine is gone."""
        if self.state != "Running" or self.host != socket.gethostname():
            return False
        try:
            return abs(psutil.Process(self.pid).create_time() - self.process_started) > 1
        except psutil.NoSuchProcess:
            return True


def cancel_own_runs(root: Path) -> None:
    """Close the records of runs of this process, which is about to end, whose threads could not do so themselves."""
    for record in load_runs(root):
        if record.state == "Running" and record.is_own():
            record.end(root, "Cancelled", INTERRUPTED)


def load_runs(root: Path) -> list[RunRecord]:
    """Return all run records, newest first."""
    paths = sorted((root / ".runs").glob("*.json"), reverse=True)
    return [RunRecord.model_validate_json(path.read_bytes()) for path in paths]
