"""Prefect's own processes: for `millrace serve` the server, a worker and all deployments; for one run an API alone."""

from __future__ import annotations

import atexit
import contextlib
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
from typing import IO, NoReturn

from rich.console import Console
from rich.markup import escape

from flows.commands.prefect_home import (
    forget_server,
    give_empty_database,
    keep_empty_database,
    note_server,
    running_server,
    serving_lock,
    settings,
)
from flows.commands.reap import reap_runs
from tasks.units import die_with_parent

REPOSITORY = Path(__file__).resolve().parents[2]
POOL = "millrace"
START_SECONDS = 180
MOST_DEATHS = 3  # of the worker within a minute


class Services:
    """Child processes that end with their parent."""

    def __init__(self, environment: Mapping[str, str], logs: Path) -> None:
        self._environment = dict(environment)
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._groups: list[int] = []
        self._arguments: dict[str, tuple[str, ...]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, *arguments: str) -> None:
        """Start `prefect ARGUMENTS` in the background, its output in a log file."""
        self._arguments[name] = arguments
        with self._log(name) as log:
            self._running[name] = self._popen(arguments, log)
        self._groups.append(self._running[name].pid)

    def restart(self, name: str) -> None:
        """Start a service that has ended once more."""
        self.start(name, *self._arguments[name])

    def call(self, name: str, *arguments: str) -> None:
        """Run `prefect ARGUMENTS` to its end; a failure is a `ValueError` with its last words."""
        with self._log(name) as log:
            code = self._popen(arguments, log).wait()
        if code:
            raise ValueError(f"prefect {' '.join(arguments)} failed: {self.last_words(name)}")

    def _log(self, name: str) -> IO[bytes]:
        path = self._logs / f"{name}.log"
        if path.exists():
            path.replace(path.with_name(f"{name}.previous.log"))
        return path.open("wb")

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

    def how_it_ended(self, name: str) -> str:
        """Return what became of a service that has ended, with its last words."""
        code = self._running[name].returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        return f"{how}, its last words: {self.last_words(name)}"

    def last_words(self, name: str) -> str:
        """Return the end of a log, for error messages."""
        lines = (self._logs / f"{name}.log").read_text(errors="replace").split("\n")
        return " ".join(" ".join(lines[-12:]).split()) or "it said nothing"

    def stop(self) -> None:
        """End all services, the last one first, and the runs that a worker which died has left behind."""
        for process in reversed(self._running.values()):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


class Restarts:
    """Decides whether a service that died is started again: not where it dies again and again."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._deaths: list[float] = []

    def note_death(self, how: str) -> str:
        """Return what happened, for people; `ValueError` where it happened too often within a minute."""
        now = time.monotonic()
        self._deaths = [*(then for then in self._deaths if now - then < 60), now]
        if len(self._deaths) >= MOST_DEATHS:
            raise ValueError(f"the Prefect {self._name} died {MOST_DEATHS} times within a minute; at last it {how}")
        return f"the Prefect {self._name} {how}; it is started again"


def serve_all(console: Console, root: Path, *, host: str, port: int, workers: str) -> None:
    """Serve until interrupted, alone on this root. Ready when it has printed the dashboard's address."""
    lock = serving_lock(root)
    if not lock.try_acquire():
        url = running_server(root)
        where = f"its dashboard is {url.removesuffix('/api')}" if url else "its dashboard is about to start"
        raise ValueError(
            f"--root {root} is served by process {lock.holder()} already, {where}; use that, or end it first"
        )
    with lock:
        _serve(console, root, host=host, port=port, workers=workers)


def _serve(console: Console, root: Path, *, host: str, port: int, workers: str) -> None:
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
        give_empty_database()
        services.start("server", "server", "start", "--host", host, "--port", str(port))
        _wait_until_healthy(services, f"{address}/api/health")
        reap_runs(console, root)
        console.print("[dim]registering deployments …[/]", highlight=False)
        services.call("pool", "work-pool", "create", POOL, "--type", "process", "--overwrite")
        services.call("deploy", "--no-prompt", "deploy", "--all")
        services.start("worker", "worker", "start", "--pool", POOL, "--type", "process")
        note_server(root, f"{address}/api")
        _greet(console, root, address)
        _watch(console, services)
    except KeyboardInterrupt:
        console.print("[dim]stopping …[/]", highlight=False)
    finally:
        forget_server(root)
        services.stop()


def _watch(console: Console, services: Services) -> NoReturn:
    """Start the worker again when it dies; its runs go on without it. Without the server, or a worker, give up."""
    restarts = Restarts("worker")
    while True:
        time.sleep(0.5)
        match services.ended():
            case "worker":
                told = restarts.note_death(services.how_it_ended("worker"))
                services.restart("worker")
                console.print(f"[yellow]{escape(told)}[/]", highlight=False, soft_wrap=True)
            case str(name):
                raise ValueError(f"the Prefect {name} {services.how_it_ended(name)}")


def start_temporary_api() -> None:
    """Serve Prefect's API to this process alone, until it ends: no pages, no schedules, no worker.

    Call it with Prefect's settings in the environment, before Prefect is imported, which happens here while it starts.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    new = give_empty_database()
    environment = os.environ | {"PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false"}  # nothing here uses them
    services = Services(environment, Path(os.environ["PREFECT_HOME"]) / "logs")
    atexit.register(services.stop)  # registered first, so that Prefect still reaches it with its last words
    quiet = ("--no-ui", "--no-scheduler", "--no-late-runs")
    services.start("server", "server", "start", "--host", "127.0.0.1", "--port", str(port), *quiet)
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    importlib.import_module("flows.deployments")
    _wait_until_healthy(services, f"http://127.0.0.1:{port}/api/health")
    if new:
        keep_empty_database()


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
