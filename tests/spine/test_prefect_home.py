"""The empty database that new roots begin with: nobody's flow runs, and nothing that a run could fail at."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.commands.prefect_home import give_empty_database, keep_empty_database


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what is kept; the home of Prefect is `home`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    for part in ("API", "SERVER"):
        monkeypatch.delenv(f"PREFECT_{part}_DATABASE_CONNECTION_URL", raising=False)
    return tmp_path / "cache" / "millrace"


def make(home: Path, runs: int = 0) -> Path:
    """Be Prefect: make a database."""
    home.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(home / "prefect.db")) as made:
        made.execute("create table flow_run (id integer)")
        made.executemany("insert into flow_run values (?)", [(k,) for k in range(runs)])
        made.commit()
    return home / "prefect.db"


def runs_in(database: Path) -> int:
    with closing(sqlite3.connect(database)) as opened:
        return int(opened.execute("select count(*) from flow_run").fetchone()[0])


def test_a_new_root_begins_with_what_was_kept(kept, tmp_path, monkeypatch):
    assert give_empty_database()
    make(tmp_path / "home")
    keep_empty_database()
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "next"))
    assert not give_empty_database()
    assert runs_in(tmp_path / "next" / "prefect.db") == 0
    make_run = sqlite3.connect(tmp_path / "next" / "prefect.db")
    with closing(make_run):
        make_run.execute("insert into flow_run values (1)")
        make_run.commit()
    assert not give_empty_database()
    assert runs_in(tmp_path / "next" / "prefect.db") == 1, "a database that is there stays"


def test_a_database_with_a_flow_run_is_not_kept(kept, tmp_path):
    make(tmp_path / "home", runs=1)
    keep_empty_database()
    assert not list(kept.glob("*.db"))


def test_what_sqlite_left_of_a_deleted_database_is_not_played_back(kept, tmp_path, monkeypatch):
    make(tmp_path / "home")
    keep_empty_database()
    home = tmp_path / "next"
    with closing(sqlite3.connect(make(home))) as crashed:
        crashed.execute("pragma journal_mode=wal")
        crashed.execute("insert into flow_run values (1)")
        crashed.commit()
        left = (home / "prefect.db-wal").read_bytes()
    (home / "prefect.db").unlink()
    (home / "prefect.db-wal").write_bytes(left)
    monkeypatch.setenv("PREFECT_HOME", str(home))
    give_empty_database()
    assert runs_in(home / "prefect.db") == 0


def test_a_home_that_cannot_be_used_is_done_without(kept, tmp_path, monkeypatch):
    make(tmp_path / "home")
    kept.parent.mkdir()
    kept.write_text("a file in place of a folder")
    keep_empty_database()
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "next"))
    assert give_empty_database()

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("could not determine home directory")))
    keep_empty_database()
    assert give_empty_database()


def test_a_database_that_sqlite_cannot_copy_is_done_without(kept, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "prefect.db").write_bytes(os.urandom(5000))
    keep_empty_database()
    assert not list(kept.glob("*.db"))
