"""`millrace serve` and deployments, with Prefect's real server, worker and pages."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.commands.prefect_home import running_server
from flows.commands.serve import Restarts
from flows.runs import load_runs
from storage.stores import open_store
from tests import warm
from tests.command import millrace
from tests.conftest import REPOSITORY
from tests.spine.test_crash import wait_for

pytestmark = pytest.mark.long
SMALL = {
    "source": {"kind": "sample", "days": 6, "resolution": 1.5, "step_hours": 3},
    "recipe": {"variables": ["u10", "t2m"]},
    "windows": {"time": 4, "height": 16, "width": 16},
}


@dataclass
class Served:
    """A running `millrace serve`."""

    root: Path
    address: str
    process: subprocess.Popen[str]

    @property
    def environment(self) -> dict[str, str]:
        """What a person exports in another terminal, and the same Prefect home."""
        return os.environ | {
            "PREFECT_API_URL": f"{self.address}/api",
            "PREFECT_HOME": str(self.root / ".prefect"),
            "MILLRACE_ROOT": str(self.root),
            "COLUMNS": "200",
        }

    def prefect(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Prefect's own command line against the server."""
        return subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=REPOSITORY, env=self.environment, text=True, capture_output=True, timeout=500,
        )  # fmt: skip

    def post(self, path: str, body: dict[str, Any], method: str = "POST") -> Any:
        """Ask the API."""
        url, headers = f"{self.address}/api/{path}", {"Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read() or "null")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    root, port = tmp_path_factory.mktemp("served"), free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", "serve", "--root", str(root), "--port", str(port)],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
    )  # fmt: skip
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("ready"):
            break
    else:
        pytest.fail("".join(said))
    yield Served(root, f"http://127.0.0.1:{port}", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the server ends with millrace serve"


@pytest.fixture(scope="module")
def completed(served: Served) -> str:
    """What is said of a deployment's run that was watched to its end."""
    params = json.dumps({"config": SMALL})
    result = served.prefect("deployment", "run", "weather/windows", "--params", params, "--watch")
    return result.stdout + result.stderr


def test_a_deployment_runs_end_to_end(served, completed):
    assert "Completed" in completed
    record = load_runs(open_store(served.root))[0]
    assert (record.engine, record.state, len(record.stages)) == ("prefect", "Completed", 5)
    assert record.profile == "windows", "gc keeps the newest of each deployment"
    names = {a["key"] for a in served.post("artifacts/filter", {"limit": 200})}
    assert {"era5-windows", "era5-windows-progress", "era5-report-coverage", "era5-report-windows"} <= names


def test_a_bad_parameter_is_refused_before_the_run_with_field_and_bound(served):
    before = served.post("flow_runs/count", {})
    params = json.dumps({"config": SMALL | {"windows": {"time": 0}}})
    result = served.prefect("deployment", "run", "weather/windows", "--params", params)
    assert result.returncode != 0
    text = " ".join((result.stdout + result.stderr).split())
    assert "config.windows.time" in text
    assert "minimum of 1" in text
    assert served.post("flow_runs/count", {}) == before


def test_a_nightly_schedule_for_era5_is_off_until_asked_for_and_stays_on_when_registered_again(served):
    def nightly() -> dict[str, Any]:
        (full,) = [d for d in served.post("deployments/filter", {}) if {"weather", "full"} <= set(d["tags"])]
        assert full["parameters"]["config"]["source"]["end"] == "latest"
        (schedule,) = full["schedules"]
        assert schedule["schedule"]["cron"] == "30 3 * * *"
        return dict(schedule)

    def switch(active: bool) -> None:
        schedule = nightly()
        path = f"deployments/{schedule['deployment_id']}/schedules/{schedule['id']}"
        served.post(path, {"active": active}, method="PATCH")

    assert nightly()["active"] is False
    switch(True)
    registered = served.prefect("--no-prompt", "deploy", "--name", "weather/full")
    assert registered.returncode == 0, registered.stdout + registered.stderr
    assert nightly()["active"] is True
    switch(False)


def test_pages_ask_the_right_port(served):
    with urllib.request.urlopen(f"{served.address}/ui-settings", timeout=120) as answer:
        assert json.load(answer)["api_url"] == f"{served.address}/api"


def test_the_dashboard_shows_the_run_in_a_real_browser(served, completed, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("chromium is not installed")
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000", "--dump-dom",
        f"{served.address}/runs",
    ]  # fmt: skip
    page = subprocess.run(command, capture_output=True, text=True, timeout=400).stdout
    assert "weather" in page
    assert "Completed" in page
    assert "Can't connect" not in page


def test_a_run_killed_under_the_server_stays_running_until_reaped(served):
    process = warm.start("flows", "run", "weather", "-p", "windows", "--set", "source.days=2000", **served.environment)
    deadline = time.monotonic() + 400
    while not (running := [r for r in load_runs(open_store(served.root)) if r.state == "Running" and r.flow_run_id]):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(2)
    process.kill()
    process.wait()
    only = {"flow_runs": {"id": {"any_": [running[0].flow_run_id]}}}
    assert served.post("flow_runs/filter", only)[0]["state"]["type"] == "RUNNING"
    reap = millrace("reap", root=served.root, **served.environment)
    assert re.search(r"Crashed\s+\S+\s+weather", reap.stdout), reap.stdout + reap.stderr
    assert served.post("flow_runs/filter", only)[0]["state"]["type"] == "CRASHED"
    assert {t["state"]["type"] for t in served.post("task_runs/filter", only)} == {"CRASHED"}


def test_a_run_that_is_cancelled_on_the_server_is_cancelled_everywhere(served):
    (windows,) = (d for d in served.post("deployments/filter", {}) if {"weather", "windows"} <= set(d["tags"]))
    config = SMALL | {"source": {"kind": "sample", "days": 2000}}
    served.post(f"deployments/{windows['id']}/create_flow_run", {"parameters": {"config": config}})

    def state() -> str:
        return next((r.state for r in load_runs(open_store(served.root)) if r.config["source"]["days"] == 2000), "")

    wait_for(lambda: state() == "Running", 300)
    flow_run_id = load_runs(open_store(served.root))[0].flow_run_id
    assert flow_run_id is not None
    cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    assert served.post(f"flow_runs/{flow_run_id}/set_state", cancelling)["status"] == "ACCEPT"
    wait_for(lambda: state() != "Running", 200)
    assert state() == "Cancelled"
    assert re.search(r"weather +Cancelled", millrace("status", root=served.root).stdout)
    only = {"flow_runs": {"id": {"any_": [flow_run_id]}}}
    wait_for(lambda: served.post("flow_runs/filter", only)[0]["state"]["type"] == "CANCELLED", 120)


def test_a_second_serve_of_the_root_names_the_first_and_leaves_it_alone(served):
    result = millrace("serve", "--port", str(free_port()), root=served.root)
    assert result.returncode == 2
    assert f"is served by process {served.process.pid} already, its dashboard is {served.address};" in result.stderr
    assert running_server(served.root) == f"{served.address}/api"


def test_a_worker_that_is_killed_is_started_again_with_a_sentence(served):
    def workers() -> list[psutil.Process]:
        return [p for p in psutil.Process(served.process.pid).children() if "worker" in p.cmdline()]

    (worker,) = workers()
    worker.kill()
    assert served.process.stdout is not None
    while not (line := served.process.stdout.readline()).startswith("the Prefect"):
        assert served.process.poll() is None
    assert re.fullmatch(r"the Prefect worker was killed by signal 9, its last words: .+; it is started again\n", line)
    (another,) = workers()
    assert another.pid != worker.pid


def test_a_worker_that_dies_again_and_again_is_given_up():
    restarts = Restarts("worker")
    assert restarts.note_death("ended with status 1").endswith("it is started again")
    assert restarts.note_death("ended with status 1").endswith("it is started again")
    with pytest.raises(ValueError, match="the Prefect worker died 3 times within a minute; at last it was killed"):
        restarts.note_death("was killed by signal 9, its last words: no memory")


def test_an_occupied_port_is_one_sentence(served, tmp_path):
    port = served.address.rpartition(":")[2]
    result = millrace("serve", "--port", port, root=tmp_path)
    assert result.returncode == 2
    assert f"--port {port} on 127.0.0.1 cannot be used" in result.stderr
