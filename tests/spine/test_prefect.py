"""Stages as Prefect tasks, against Prefect's real API: states, artifacts, dependencies, failures."""

from __future__ import annotations

import base64

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter, FlowRunFilterId, TaskRunFilter
from prefect.client.schemas.sorting import ArtifactSort, TaskRunSort
from prefect.runtime import flow_run
from prefect.testing.utilities import prefect_test_harness

from storage.assets import AssetStore
from tasks.session import Session
from tasks.stage import Job, StageResult, dashboard_reporter, stage
from tests.spine import toy


@pytest.fixture(scope="module")
def api():
    with prefect_test_harness(server_startup_timeout=180):
        yield


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


def test_stage_states_artifacts_and_arrows(api, tmp_path):
    tasks, artifacts = runs_of(toy_flow(str(tmp_path)))
    assert {t.state.name for t in tasks.values()} == {"Completed"}
    assert {a.type for a in artifacts} == {"progress", "table"}
    bars = {a.key: a.data for a in artifacts if a.type == "progress"}
    assert bars == {"squares-progress": 100.0, "total-progress": 100.0}, "stages without units have a bar too"
    assert any("first run" in (a.description or "") for a in artifacts)
    parents = [p.id for inputs in tasks["total"].task_inputs.values() for p in inputs]
    assert parents == [tasks["squares"].id], "the dashboard draws the arrow from squares to total"

    tasks, _ = runs_of(toy_flow(str(tmp_path)))
    assert {t.state.name for t in tasks.values()} == {"Cached"}
    assert all("verified" in t.state.message for t in tasks.values())


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


def test_a_picture_of_the_work_takes_the_place_of_the_last_one(api, tmp_path):
    _, artifacts = runs_of(painted_flow(str(tmp_path)))
    (picture,) = (a for a in artifacts if a.type == "image")
    assert picture.key == "painting-curves"
    assert picture.data == f"data:image/png;base64,{base64.b64encode(b'late').decode()}"


def test_bad_input_is_a_failed_state_with_one_sentence(api, tmp_path):
    with pytest.raises(ValueError, match="number 7 is not wanted"):
        toy_flow(str(tmp_path), bad=True)
