"""Flows of toy stages, and what Prefect's API tells of their runs."""

from __future__ import annotations

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter, FlowRunFilterId, TaskRunFilter
from prefect.client.schemas.sorting import ArtifactSort, TaskRunSort
from prefect.runtime import flow_run

from storage.assets import AssetStore
from tasks.session import Session
from tasks.stage import Job, StageResult, dashboard_reporter, stage
from tests.spine import toy


@stage("broken")
def broken(job: Job, *, number: int) -> StageResult:
    """Fail as bad input does."""
    raise ValueError(f"number {number} is not wanted; give another")


@flow(name="toy", persist_result=False)
def toy_flow(root: str, bad: bool = False) -> str:
    """Run two toy stages."""
    session = Session(AssetStore(root), dashboard_reporter(), engine="prefect")
    with session.active():
        numbers = toy.squares(count=5, first=0)
        toy.total(numbers=numbers, modulus=100)
        if bad:
            broken(number=7)
    return str(flow_run.id)


@stage("painting")
def painting(job: Job) -> StageResult:
    """Show how the work looks, twice."""
    for png in (b"early", b"late"):
        job.picture("curves", png)
    return StageResult()


@flow(name="painted", persist_result=False)
def painted_flow(root: str) -> str:
    """Run a stage that shows pictures."""
    with Session(AssetStore(root), dashboard_reporter(), engine="prefect").active():
        painting()
    return str(flow_run.id)


def runs_of(flow_run_id: str):
    """Return the flow run's task runs by name, and all its artifacts."""
    with get_client(sync_client=True) as client:
        only = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
        task_runs = client.read_task_runs(flow_run_filter=only, sort=TaskRunSort.END_TIME_DESC, limit=200)
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(),
            flow_run_filter=only,
            task_run_filter=TaskRunFilter(),
            sort=ArtifactSort.CREATED_DESC,
            limit=200,
            offset=0,
        )
    return {t.name.split("-")[0]: t for t in task_runs}, artifacts
