"""What `verify` finds wrong, the next run makes again: files of the same size, and facts in manifests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.assets import DAMAGED, Asset, AssetStore
from storage.manifest import MANIFEST
from storage.remote import Objects
from tests.command import millrace
from tests.spine.s3_server import on_another_machine
from tests.spine.s3_server import store as store_at
from tests.spine.test_stage import run
from tests.spine.toy_pipeline import plan_toy, run_toy


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A root in a folder, and one on an object store, in which the toy pipeline has run."""
    root: str = request.getfixturevalue("url") if request.param == "s3" else str(tmp_path / "assets")
    run_toy(opened(root).root)
    return root


def opened(root: str) -> AssetStore:
    return store_at(root) if "://" in root else AssetStore(Path(root))


def change(root: str, asset: Asset, name: str, alter: Callable[[bytes], bytes]) -> None:
    """Alter a file of an asset where it lies."""
    if "://" in root:
        place = f"{asset.name}/{name}"
        Objects(root).write(place, alter(Objects(root).read(place)))
    else:
        path = asset.folder / name
        path.chmod(0o644)
        path.write_bytes(alter(path.read_bytes()))


def flip(data: bytes) -> bytes:
    return b"X" + data[1:]


def test_what_a_deep_look_finds_wrong_the_next_run_repairs_and_nothing_else(root, tmp_path, monkeypatch):
    store = opened(root)
    asset = store.assets("squares")[0]
    change(root, asset, "squares/n2.txt", flip)
    assert millrace("verify", root=root).returncode == 0, "it has its size"
    assert plan_toy(store.root)["squares"].status == "HIT"
    found = millrace("verify", "--deep", root=root)
    assert found.returncode == 1
    assert "the next run repairs it" in found.stdout
    assert f"squares/n2.txt has other content{store.where} than was written" in found.stdout
    assert "squares/n2.txt" in (store.note(DAMAGED, asset.name) or "")

    assert millrace("verify", root=root).returncode == 1, "what is marked is compared by content"
    plan = plan_toy(store.root)["squares"]
    assert plan.status == "RUN"
    assert plan.reason.startswith("output file squares/n2.txt has other content")
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    stages = run_toy(store.root).stages
    assert [s.status for s in stages] == ["RUN", "HIT", "HIT"]
    log = tmp_path / "log"
    made = log.read_text().split() if log.exists() else []
    assert made == ([] if store.where else ["n2"]), "on S3 the copy here is right"
    assert store.note_names(DAMAGED) == []
    assert store.verify(store.assets("squares")[0], deep=True) == []
    assert plan_toy(store.root)["squares"].reason == f"5 files verified by size{store.where}"


def test_another_machine_sees_the_mark_and_keeps_the_units_that_are_right(url, tmp_path, monkeypatch):
    run_toy(store_at(url).root)
    change(url, store_at(url).assets("squares")[0], "squares/n2.txt", flip)
    assert millrace("verify", "--deep", root=url).returncode == 1
    other = on_another_machine(url, monkeypatch, tmp_path)
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    assert run_toy(other.root).stages[0].status == "RUN"
    assert (tmp_path / "log").read_text().split() == ["n2"]
    assert other.verify(other.assets("squares")[0], deep=True) == []


def test_a_marked_asset_that_is_whole_after_all_is_a_hit_and_trusted_again(root):
    store = opened(root)
    asset = store.assets("squares")[0]
    change(root, asset, "squares/n2.txt", flip)
    assert millrace("verify", "--deep", root=root).returncode == 1
    change(root, asset, "squares/n2.txt", lambda data: data[2:4] + data[2:])
    assert opened(root).marked(asset)
    assert plan_toy(store.root)["squares"].reason == f"5 files verified by content{store.where}"
    assert store.marked(asset), "a plan changes nothing"
    assert run_toy(store.root).stages[0].status == "HIT"
    assert not store.marked(asset)


def test_verify_takes_back_a_mark_that_holds_no_more(store):
    run_toy(store.root)
    asset = store.assets("squares")[0]
    store.mark(asset, [])
    assert millrace("verify", root=store.root).returncode == 0
    assert not store.marked(asset)


def test_gc_takes_marks_along(store):
    run_toy(store.root, count=5)
    asset = store.assets("squares")[0]
    run_toy(store.root)
    store.mark(asset, [])
    assert millrace("gc", "--yes", "--age", "0", root=store.root).returncode == 0
    assert not store.marked(asset)


def edit_counts(facts: dict[str, Any]) -> None:
    facts["counts"]["numbers"] += 1


def edit_metrics(facts: dict[str, Any]) -> None:
    facts["metrics"]["loss"] = 0.01


def edit_config(facts: dict[str, Any]) -> None:
    facts["config"]["count"] = 5


def edit_inputs(facts: dict[str, Any]) -> None:
    facts["inputs"] = [{"name": "raw", "kind": "raw", "key": "k", "fingerprint": "f", "files": []}]


def edit_a_unit(facts: dict[str, Any]) -> None:
    facts["units"][1]["result"]["square"] = 7


def edit_time(facts: dict[str, Any]) -> None:
    facts["created_at"] = "2020-01-01T00:00:00Z"


def edit_reason(facts: dict[str, Any]) -> None:
    facts["reason"] = "because"


def drop_the_digest(facts: dict[str, Any]) -> None:
    del facts["digest"]


def edit_to_no_number(facts: dict[str, Any]) -> None:
    facts["metrics"]["loss"] = float("nan")


EDITS = [
    edit_counts, edit_metrics, edit_config, edit_inputs, edit_a_unit, edit_time, edit_reason, drop_the_digest,
    edit_to_no_number,
]  # fmt: skip


def edited(edit: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    """Return what changes a manifest's bytes by an edit of its facts."""

    def alter(data: bytes) -> bytes:
        facts = json.loads(data)
        edit(facts)
        return json.dumps(facts, indent=1).encode()

    return alter


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_a_manifest_with_an_edited_fact_is_damage_and_the_asset_is_made_again(store, tmp_path, monkeypatch, edit):
    before = run(store)["squares"].asset
    change(str(store.root), before, MANIFEST, edited(edit))
    (damage,) = store.verify(store.asset("squares", before.key))
    assert damage.path == MANIFEST
    assert run(store, planning=True)["squares"].status == "RUN"
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    again = run(store)
    assert [o.status for o in again.values()] == ["RUN", "HIT", "HIT"]
    assert len((tmp_path / "log").read_text().split()) == 4, "what it says of its units cannot be trusted"
    assert again["squares"].asset.manifest.counts == {"numbers": 4}


def test_an_edited_manifest_is_named_by_every_command_that_meets_it(root):
    store = opened(root)
    asset = store.assets("squares")[0]
    change(root, asset, MANIFEST, edited(edit_counts))
    found = millrace("verify", root=root)
    assert found.returncode == 1
    assert f"output file {MANIFEST} was changed after it was written (SHA-256 differs){store.where}" in found.stdout
    assert found.stdout.count("damaged") == 1
    plan = plan_toy(store.root)["squares"]
    assert "manifest.json was changed after it was written" in plan.reason
    assert "1 damaged (millrace verify)" in millrace("status", root=root).stdout
    assert "(damaged)" in millrace("show", "total", root=root).stdout
    refused = millrace("show", "squares", root=root)
    assert refused.returncode == 2
    assert "was changed after it was written" in refused.stderr
    assert millrace("gc", "--yes", "--age", "0", root=root).returncode == 0
    assert [s.status for s in run_toy(store.root).stages] == ["RUN", "HIT", "HIT"]
    assert millrace("verify", "--deep", root=root).returncode == 0


def test_another_layout_of_the_same_facts_is_no_damage(store):
    run(store)
    asset = store.assets("squares")[0]
    change(str(store.root), asset, MANIFEST, lambda data: json.dumps(json.loads(data), sort_keys=True).encode())
    assert run(store)["squares"].status == "HIT"


def test_manifests_of_versions_before_are_hits(store):
    """They had no digest, and schema version 1."""

    def as_before(facts: dict[str, Any]) -> None:
        del facts["digest"]
        facts["schema_version"] = 1

    run(store)
    for asset in store.assets():
        change(str(store.root), asset, MANIFEST, edited(as_before))
    assert [o.status for o in run(store).values()] == ["HIT"] * 3
    assert millrace("verify", "--deep", root=store.root).returncode == 0
    longer = run(store, count=6)
    assert longer["squares"].asset.manifest.schema_version == 2


def test_a_root_that_cannot_be_written_is_verified_all_the_same(store, monkeypatch, capsys):
    from rich.console import Console

    from flows.commands.views import print_verification

    run(store)
    change(str(store.root), store.assets("squares")[0], "squares/n2.txt", flip)
    monkeypatch.setattr("storage.assets.write_atomic", refuse)
    assert not print_verification(Console(width=200), store, None, deep=True)
    assert "a run with --deep repairs it; it cannot be marked" in capsys.readouterr().out


def refuse(*arguments: object) -> None:
    raise OSError(30, "Read-only file system")
