"""Stages as Prefect tasks, against Prefect's real API: states, artifacts, dependencies, failures."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def flows() -> Iterator[ModuleType]:
    """Flows of toy stages; only the process that runs these tests has to import Prefect."""
    from prefect.testing.utilities import prefect_test_harness

    from tests.spine import prefect_flows

    with prefect_test_harness(server_startup_timeout=180):
        yield prefect_flows


def test_stage_states_artifacts_and_arrows(flows, tmp_path):
    tasks, artifacts = flows.runs_of(flows.toy_flow(str(tmp_path)))
    assert {t.state.name for t in tasks.values()} == {"Completed"}
    assert {a.type for a in artifacts} == {"progress", "table"}
    bars = {a.key: a.data for a in artifacts if a.type == "progress"}
    assert bars == {"squares-progress": 100.0, "total-progress": 100.0}, "stages without units have a bar too"
    assert any("first run" in (a.description or "") for a in artifacts)
    parents = [p.id for inputs in tasks["total"].task_inputs.values() for p in inputs]
    assert parents == [tasks["squares"].id], "the dashboard draws the arrow from squares to total"

    tasks, _ = flows.runs_of(flows.toy_flow(str(tmp_path)))
    assert {t.state.name for t in tasks.values()} == {"Cached"}
    assert all("verified" in t.state.message for t in tasks.values())


def test_a_picture_of_the_work_takes_the_place_of_the_last_one(flows, tmp_path):
    _, artifacts = flows.runs_of(flows.painted_flow(str(tmp_path)))
    (picture,) = (a for a in artifacts if a.type == "image")
    assert picture.key == "painting-curves"
    assert picture.data == f"data:image/png;base64,{base64.b64encode(b'late').decode()}"


def test_bad_input_is_a_failed_state_with_one_sentence(flows, tmp_path):
    with pytest.raises(ValueError, match="number 7 is not wanted"):
        flows.toy_flow(str(tmp_path), bad=True)
