"""The Prefect settings of one asset root: its database, and the server that `millrace serve` runs for it."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

import psutil

from storage.files import atomic_path, write_atomic
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


def give_empty_database() -> bool:
    """Give a root without a Prefect database an empty one, which was kept when Prefect last made one on this machine.

    Making one takes Prefect ten seconds of migrations. Returns whether this root's is still to be made by Prefect.
    """
    database = _database()
    if database is None or database.exists():
        return False
    try:
        kept = _empty_database().read_bytes()
    except (OSError, RuntimeError):  # none is kept, or not for this user, who may have no home
        return True
    with FileLock(database.with_suffix(".lock")):
        if database.exists():
            return False
        for stale in ("-wal", "-shm"):  # of a database that somebody has deleted: SQLite would go on from there
            database.with_name(database.name + stale).unlink(missing_ok=True)
        write_atomic(database, kept)
    return False


def keep_empty_database() -> None:
    """Keep the database that Prefect has just made, while nothing is in it, for other roots on this machine.

    A home that cannot be written, or is full, does without.
    """
    database = _database()
    if database is None:
        return
    with suppress(OSError, RuntimeError, sqlite3.Error):
        kept = _empty_database()
        if kept.exists() or not database.exists():
            return
        with (
            atomic_path(kept) as temporary,
            closing(sqlite3.connect(database)) as made,
            closing(sqlite3.connect(temporary)) as copy,
        ):
            made.backup(copy)
            if copy.execute("SELECT 1 FROM flow_run LIMIT 1").fetchone():
                raise sqlite3.DataError("another process has begun a flow run in it already")


def _database() -> Path | None:
    """Return the file of the database in Prefect's home; nothing where the user has named another one."""
    if any(os.environ.get(f"PREFECT_{part}_DATABASE_CONNECTION_URL") for part in ("API", "SERVER")):
        return None
    return Path(os.environ["PREFECT_HOME"]) / "prefect.db"


def _empty_database() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "millrace" / f"prefect-{version('prefect')}.db"


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
