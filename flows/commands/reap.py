"""Repair of runs that a kill left as Running: in the run records, and in Prefect's database."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from flows.commands.prefect_home import settings
from flows.runs import RunRecord, load_runs
from storage.stores import open_store

MESSAGE = "the process ended without a word (killed); millrace reap noticed it"


def reap_runs(console: Console, root: Path) -> int:
    """Mark every run of a dead process Crashed; return how many there were."""
    store = open_store(root)
    orphans = [record for record in load_runs(store) if record.is_orphan()]
    flow_runs = [record for record in orphans if record.flow_run_id]
    if flow_runs:
        os.environ |= settings(root)
        for record in flow_runs:
            _crash_flow_run(record)
    for record in orphans:
        record.end(store, "Crashed", MESSAGE)
        console.print(f"[red]Crashed[/] {record.id}  {record.pipeline}, process {record.pid} is dead", highlight=False)
    if not orphans:
        console.print("every run that says Running has a live process", highlight=False)
    return len(orphans)


def _crash_flow_run(record: RunRecord) -> None:
    """Force the flow run and its unfinished task runs into the state Crashed, where Prefect knows them."""
    from uuid import UUID

    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import TaskRunSort
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    assert record.flow_run_id is not None
    flow_run_id = UUID(record.flow_run_id)
    with get_client(sync_client=True) as client:
        try:
            flow_run = client.read_flow_run(flow_run_id)
        except ObjectNotFound:  # the run belongs to another Prefect database
            return
        if flow_run.state is None or flow_run.state.is_final():
            return
        only_this = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
        tasks = client.read_task_runs(flow_run_filter=only_this, sort=TaskRunSort.END_TIME_DESC, limit=200)
        for task_run in tasks:
            if task_run.state is None or not task_run.state.is_final():
                client.set_task_run_state(task_run.id, Crashed(message=MESSAGE), force=True)
        client.set_flow_run_state(flow_run_id, Crashed(message=MESSAGE), force=True)
