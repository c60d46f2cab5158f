"""The Prefect settings of one asset root: its database, and the server that `millrace serve` runs for it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil

from storage.files import write_atomic
from storage.locks import FileLock


def settings(root: Path) -> dict[str, str]:
    """Return the environment for Prefect, which reads it on import; what the user has set stays."""
    (root / ".prefect").mkdir(parents=True, exist_ok=True)
    defaults = {
        "MILLRACE_ROOT": str(root),
        "PREFECT_HOME": str(root / ".prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "millrace",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # a busy machine takes more than Prefect's 20
        "DO_NOT_TRACK": "1",
    }
    if url := running_server(root):
        defaults["PREFECT_API_URL"] = url
    return {name: os.environ.get(name, value) for name, value in defaults.items()} | {"MILLRACE_ROOT": str(root)}


def note_server(root: Path, url: str) -> None:
    """Remember that this process serves the root at an API address."""
    facts = {"url": url, "pid": os.getpid(), "started": psutil.Process().create_time()}
    write_atomic(_note(root), json.dumps(facts))


def forget_server(root: Path) -> None:
    """Forget the server of a root, which is that of this process."""
    _note(root).unlink(missing_ok=True)


def serving_lock(root: Path) -> FileLock:
    """The lock of the one process that serves a root."""
    return FileLock(root / ".locks" / "serve")


def running_server(root: Path) -> str | None:
    """Return the API address of the live `millrace serve` of a root."""
    try:
        facts = json.loads(_note(root).read_bytes())
        alive = abs(psutil.Process(facts["pid"]).create_time() - facts["started"]) < 1
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None
    return facts["url"] if alive else None


def _note(root: Path) -> Path:
    return root / ".prefect" / "millrace-server.json"
