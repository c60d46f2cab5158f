"""`millrace gc` on an object store that several machines use."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from flows.runs import RUNS, load_runs
from storage.assets import AssetStore, Workspace, describe_size
from storage.remote import Objects
from tests.command import millrace
from tests.spine.ageing import let_days_pass
from tests.spine.s3_server import on_another_machine, store
from tests.spine.toy_pipeline import plan_toy, run_toy
from tests.test_gc import gc, killed_run


def objects(url: str) -> set[str]:
    """Return what lies in the bucket, notes excepted."""
    return {name for name in Objects(url).list() if not name.startswith(".")}


@pytest.mark.parametrize("folder", ["kept", "deleted"])
def test_another_machine_deletes_nothing_that_runs_of_the_first_lead_to(url, monkeypatch, tmp_path, folder):
    first = store(url)
    done = run_toy(first.root)
    run_toy(first.root, "other", text="other")
    assert killed_run(first.root, "n7", count=9)
    let_days_pass(first, 80)
    before = objects(url)
    if folder == "deleted":
        shutil.rmtree(first.root)
    second = on_another_machine(url, monkeypatch, tmp_path)
    assert "nothing to remove" in gc(url, "--age", "0")
    assert objects(url) == before
    assert {o.status for o in plan_toy(second.root).values()} == {"HIT"}
    status = millrace("status", root=url).stdout
    assert status.count(" toy ") == 3
    assert done.id[-6:] in status
    if folder == "kept":
        assert plan_toy(first.root, count=9)["squares"].label == "RESUME 7/9"


def test_units_of_abandoned_runs_are_found_in_the_bucket_and_their_bytes_counted(url, monkeypatch, tmp_path):
    first = store(url)
    assert killed_run(first.root, "n7", count=9)
    (folder,) = first.workspaces()
    files = [file for unit in Workspace(folder).finished().values() for file in unit.files]
    stored = sum(file.size for file in files)
    run_toy(first.root, count=3)
    assert "nothing to remove" in gc(url), "it is young"

    second = on_another_machine(url, monkeypatch, tmp_path)
    left = {name for name in objects(url) if folder.stem in name}
    assert len(left) == len(files) == 7
    said = gc(url, "--age", "0")
    assert re.search(rf"squares/{folder.stem[:12]} +[\d.]+ k?B +unfinished; last used [\d-]+ by toy/demo", said), said
    assert f"freed {describe_size(stored)} in {url} and 0 B here" in said
    assert not objects(url) & left
    assert {o.status for o in plan_toy(second.root, count=3).values()} == {"HIT"}


def test_what_is_old_goes_from_the_bucket_and_from_here(url):
    here = store(url)
    old = {asset.partition("/")[0]: asset for asset in (s.asset for s in run_toy(here.root, modulus=7).stages)}
    run_toy(here.root, modulus=11)
    let_days_pass(here, 60)
    total = here.asset(*old["total"].split("/"))
    total.fetch()
    size = sum(s.size for n, s in Objects(url).list().items() if n.startswith((old["total"], old["label"])))
    said = gc(url)
    assert f"freed {describe_size(size)} in {url} and " in said
    assert not total.folder.exists()
    assert len(here.assets()) == 3


def test_records_that_versions_before_kept_on_one_machine_count_and_are_shared(url, monkeypatch, tmp_path):
    first = store(url)
    record = run_toy(first.root)
    first.remove_notes(RUNS, [f"{record.id}.json"])
    AssetStore.write_note(first, RUNS, f"{record.id}.json", record.model_dump_json())
    assert "nothing to remove" in gc(url, "--age", "0")
    cache = tmp_path / "one"
    second = on_another_machine(url, monkeypatch, tmp_path)
    assert "has no record of any run" in millrace("gc", "--yes", root=url).stderr
    monkeypatch.setenv("MILLRACE_CACHE", str(cache))
    run_toy(first.root, "other", count=2)
    assert [r.profile for r in load_runs(second)] == ["other", "demo"]


def test_a_copy_of_what_another_machine_removed_goes(url, monkeypatch, tmp_path):
    first = store(url)
    old: Path = first.asset(*run_toy(first.root, modulus=7).stages[1].asset.split("/")).folder
    run_toy(first.root)
    on_another_machine(url, monkeypatch, tmp_path)
    gc(url, "--age", "0")
    monkeypatch.setenv("MILLRACE_CACHE", str(tmp_path / "one"))
    assert old.exists()
    said = gc(url, "--age", "0")
    assert not old.exists(), said
