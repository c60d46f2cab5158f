"""Running and planning a pipeline: the session around its stages, and the record of what happened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from configs.base import Config
from flows.pipelines import Pipeline
from flows.runs import RunRecord, recorded
from storage.stores import open_store
from tasks.progress import Silent
from tasks.session import Outcome, Reporter, Session
from tasks.units import Workers

DEFAULT_ROOT = "assets"
Engine = Literal["inline", "prefect"]


def default_root() -> Path:
    """Return where assets live: MILLRACE_ROOT, or `assets` in the working directory."""
    return root_folder(os.environ.get("MILLRACE_ROOT", DEFAULT_ROOT))


def root_folder(root: str) -> Path:
    """Return the folder of a root: itself, or for one on an object store (`s3://…`) its working folder here."""
    if "://" in root:
        from storage.remote import working_folder

        return working_folder(root)
    return Path(root).expanduser().absolute()


def plan(
    pipeline: Pipeline, config: Config, root: Path, *, deep: bool = False, reporter: Reporter | None = None
) -> list[Outcome]:
    """Walk the pipeline's stages without running any; say for each what would happen and why."""
    session = Session(open_store(root), reporter or Silent(), planning=True, deep=deep)
    with session.active():
        pipeline.wire(config)
    return session.outcomes


def run(
    pipeline: Pipeline,
    config: Config,
    root: Path,
    reporter: Reporter,
    *,
    profile: str = "",
    workers: str = "auto",
    engine: Engine = "inline",
    deep: bool = False,
    flow_run_id: str | None = None,
) -> RunRecord:
    """Run all stages of a pipeline in this process; return the record of the run, which is also kept in the root."""
    record = RunRecord.begin(pipeline.name, profile, config.model_dump(mode="json"), engine)
    record.flow_run_id = flow_run_id
    session = Session(open_store(root), reporter, workers=Workers.parse(workers), engine=engine, deep=deep)
    with recorded(session, record):
        pipeline.wire(config)
    return record
