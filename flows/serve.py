"""Prefect's own processes: for `millrace serve` the server, a worker and all deployments; for one run an API alone."""

from __future__ import annotations

import atexit
import importlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import IO

from rich.console import Console

from flows.prefect_home import forget_server, note_server, settings
from flows.reap import reap_runs
from tasks.units import die_with_parent

REPOSITORY = Path(__file__).resolve().parent.parent
POOL = "millrace"
START_SECONDS = 180


class Services:
    """Child processes that end together: with their parent, or when one of them ends."""

    def __init__(self, environment: Mapping[str, str], logs: Path) -> None:
        self._environment = dict(environment)
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, *arguments: str) -> None:
        """Start `prefect ARGUMENTS` in the background, its output in a log file."""
        with self._log(name) as log:
            self._running[name] = self._popen(arguments, log)

    def call(self, name: str, *arguments: str) -> None:
        """Run `prefect ARGUMENTS` to its end; a failure is a `ValueError` with its last words."""
        with self._log(name) as log:
            code = self._popen(arguments, log).wait()
        if code:
            raise ValueError(f"prefect {' '.join(arguments)} failed: {self.last_words(name)}")

    def _log(self, name: str) -> IO[bytes]:
        return (self._logs / f"{name}.log").open("wb")

    def _popen(self, arguments: tuple[str, ...], log: IO[bytes]) -> subprocess.Popen[bytes]:
        parent = os.getpid()
        return subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=REPOSITORY,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(parent),
        )

    def ended(self) -> str | None:
        """Return the name of a service that has ended."""
        return next((name for name, process in self._running.items() if process.poll() is not None), None)

    def last_words(self, name: str) -> str:
        """Return the end of a log, for error messages."""
        lines = (self._logs / f"{name}.log").read_text(errors="replace").split("\n")
        return " ".join(" ".join(lines[-12:]).split()) or "it said nothing"

    def stop(self) -> None:
        """End all services, the last one first."""
        for process in reversed(self._running.values()):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def serve_all(console: Console, root: Path, *, host: str, port: int, workers: str) -> None:
    """Serve until interrupted. Ready when it has printed the dashboard's address."""
    _check_port(host, port)
    address = f"http://{host}:{port}"
    environment = settings(root) | {
        "PREFECT_API_URL": f"{address}/api",
        "PREFECT_UI_API_URL": f"{address}/api",  # without it the pages ask port 4200
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
        "MILLRACE_WORKERS": workers,
    }
    os.environ |= environment
    services = Services(os.environ, root / ".prefect" / "logs")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        console.print("[dim]starting the Prefect server …[/]", highlight=False)
        services.start("server", "server", "start", "--host", host, "--port", str(port))
        _wait_until_healthy(services, f"{address}/api/health")
        reap_runs(console, root)
        console.print("[dim]registering deployments …[/]", highlight=False)
        services.call("pool", "work-pool", "create", POOL, "--type", "process", "--overwrite")
        services.call("deploy", "--no-prompt", "deploy", "--all")
        services.start("worker", "worker", "start", "--pool", POOL, "--type", "process")
        note_server(root, f"{address}/api")
        _greet(console, root, address)
        while (name := services.ended()) is None:
            time.sleep(0.5)
        raise ValueError(f"the Prefect {name} ended: {services.last_words(name)}")
    except KeyboardInterrupt:
        console.print("[dim]stopping …[/]", highlight=False)
    finally:
        forget_server(root)
        services.stop()


def start_temporary_api(root: Path) -> None:
    """Serve Prefect's API to this process alone, until it ends: no pages, no schedules, no worker.

    Call it before Prefect is imported. The pipelines are imported while it starts.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    services = Services(os.environ, root / ".prefect" / "logs")
    atexit.register(services.stop)  # registered first, so that Prefect still reaches it with its last words
    quiet = ("--no-ui", "--no-scheduler", "--no-late-runs")
    services.start("api", "server", "start", "--host", "127.0.0.1", "--port", str(port), *quiet)
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    importlib.import_module("flows.deployments")
    _wait_until_healthy(services, f"http://127.0.0.1:{port}/api/health")


def _greet(console: Console, root: Path, address: str) -> None:
    console.print(
        f"[bold green]ready[/]  dashboard {address}   assets {root}\n"
        f"        export PREFECT_API_URL={address}/api\n"
        "        prefect deployment run 'weather/demo' --watch\n"
        "        prefect deployment schedule ls weather/full     # nightly ERA5, off until you resume it\n"
        "[dim]Ctrl-C ends the server, the worker and their runs; interrupted stages continue next time.[/]",
        highlight=False,
        soft_wrap=True,
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(f"--port {port} on {host} cannot be used ({error.strerror}); choose another") from None


def _wait_until_healthy(services: Services, url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if name := services.ended():
            raise ValueError(f"the Prefect {name} did not start: {services.last_words(name)}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.3)
    raise ValueError(f"the Prefect server did not answer within {START_SECONDS} s: {services.last_words('server')}")
