"""What a stage promises: keys, cache, verification, early cutoff, reasons, resume, repair."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from storage.assets import AssetStore, verify
from storage.raw import RawIndex
from tasks import code
from tasks.progress import Silent
from tasks.session import Pending, Session
from tasks.stage import Label, raw_input
from tests.spine import toy


def run(store: AssetStore, *, planning: bool = False, deep: bool = False, **changes):
    """Run or plan the toy pipeline; return its outcomes by stage."""
    config = {"count": 4, "first": 0, "modulus": 1000, "text": "sum"} | changes
    session = Session(store, Silent(), planning=planning, deep=deep)
    with session.active():
        numbers = toy.squares(count=config["count"], first=config["first"])
        value = toy.total(numbers=numbers, modulus=config["modulus"])
        toy.label(value=value, text=config["text"])
    return {outcome.stage: outcome for outcome in session.outcomes}


def test_second_run_hits_and_plan_says_so(store):
    first = run(store)
    assert [o.status for o in first.values()] == ["RUN"] * 3
    assert first["squares"].reason == "first run"
    assert [o.status for o in run(store).values()] == ["HIT"] * 3
    assert [o.status for o in run(store, planning=True).values()] == ["HIT"] * 3


def test_plan_writes_nothing(store):
    plan = run(store, planning=True)
    assert [o.status for o in plan.values()] == ["RUN"] * 3
    assert plan["total"].reason == "after squares; cached if that changes nothing"
    assert not store.root.exists()


def test_reason_names_the_config_field_from_and_to(store):
    run(store)
    plan = run(store, planning=True, modulus=7)
    assert plan["squares"].status == "HIT"
    assert plan["total"].reason == "config modulus 1000 -> 7"


def test_a_field_that_the_stage_does_not_read_changes_nothing(store):
    run(store)
    plan = run(store, planning=True, text="other")
    assert (plan["squares"].status, plan["total"].status, plan["label"].status) == ("HIT", "HIT", "RUN")


def test_how_the_work_is_done_and_what_it_is_called_never_enter_a_key(store):
    run(store)
    value, outcomes = store.assets("total")[0], []
    for pause, label in [(0.0, "first"), (0.01, "second")]:
        session = Session(store, Silent())
        with session.active():
            toy.copies(value=value, speed=toy.Speed(pause=pause), label=Label(label))
        outcomes += session.outcomes
    assert [(o.status, o.stage) for o in outcomes] == [("RUN", "copies first"), ("HIT", "copies second")]
    assert outcomes[0].asset.manifest.config == {}
    assert outcomes[0].asset.manifest.stage == "copies"


def test_equal_output_cuts_off_what_follows(store):
    """0+1+4+9 = 14 and 1+4+9 = 14: `total` runs again, its output is equal, so `label` need not."""
    run(store)
    again = run(store, first=1, count=3)
    assert again["squares"].status == again["total"].status == "RUN"
    assert again["label"].status == "HIT"


def test_reason_names_the_changed_input(store):
    run(store)
    assert run(store, count=5)["total"].reason == "input numbers changed"


def test_units_with_unchanged_keys_are_taken_over_by_hard_link(store, tmp_path, monkeypatch):
    old = run(store)["squares"].asset
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    new = run(store, count=6)["squares"].asset
    assert (tmp_path / "log").read_text().split() == ["n4", "n5"]
    assert (old.folder / "squares/n2.txt").samefile(new.folder / "squares/n2.txt")


def test_a_changed_helper_invalidates_and_a_comment_does_not(tmp_path, monkeypatch):
    package = tmp_path / "probe"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "main.py").write_text("from probe.helper import f\n\ndef g():\n    return f()\n")
    helper = package / "helper.py"
    helper.write_text("def f():\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(code, "PACKAGES", ("probe",))

    def fresh() -> str:
        return code.Code().digest("probe.main")

    before = fresh()
    helper.write_text("# a remark\ndef f():\n    '''Words.'''\n    return   1\n")
    assert fresh() == before
    helper.write_text("def f():\n    return 2\n")
    assert fresh() != before


def test_what_is_known_about_code_is_written_once_for_each_question_and_read_again(tmp_path, monkeypatch):
    memory, written = tmp_path / "code.json", []
    monkeypatch.setattr(code, "write_atomic", lambda path, text: written.append(path.write_text(text)))
    found = code.Code(memory).digest("tasks.fire.training")
    assert len(written) == 1
    monkeypatch.setattr(code, "_facts", lambda text: pytest.fail("this was known already"))
    assert code.Code(memory).digest("tasks.fire.training") == found
    assert len(written) == 1


def test_code_change_is_the_reason(store, monkeypatch):
    run(store)
    monkeypatch.setattr(code.Code, "digest", lambda self, *modules: "other")
    assert run(store, planning=True)["squares"].reason == "code changed"


DAMAGES = {
    "deleted": (lambda path: path.unlink(), False, "is missing"),
    "truncated": (lambda path: os.truncate(path, 3), False, "has 3 bytes where"),
    "flipped": (lambda path: path.write_bytes(b"X" + path.read_bytes()[1:]), True, "has other content"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed_named_and_repaired(store, tmp_path, monkeypatch, damage):
    harm, deep, words = DAMAGES[damage]
    asset = run(store, count=8)["squares"].asset
    before = asset.fingerprint
    victim = asset.folder / "squares/n3.txt"
    victim.chmod(0o644)
    harm(victim)

    found = verify(asset, deep=deep)
    assert [d.path for d in found] == ["squares/n3.txt"]
    assert words in str(found[0])
    plan = run(store, count=8, planning=True, deep=deep)["squares"]
    assert plan.status == "RUN"
    assert "squares/n3.txt" in plan.reason

    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    repaired = run(store, count=8, deep=deep)
    assert (tmp_path / "log").read_text().split() == ["n3"], "only the damaged unit is done again"
    assert repaired["squares"].asset.fingerprint == before
    assert verify(repaired["squares"].asset, deep=True) == []
    assert repaired["total"].status == "HIT"


def test_a_foreign_file_is_noticed_and_removed(store):
    asset = run(store)["squares"].asset
    (asset.folder / "squares/n99.txt").write_text("intruder")
    outcome = run(store)["squares"]
    assert "squares/n99.txt does not belong" in outcome.reason
    assert not (asset.folder / "squares/n99.txt").exists()


def test_a_lost_or_altered_manifest_is_no_hit(store):
    asset = run(store)["squares"].asset
    text = (asset.folder / "manifest.json").read_text()
    (asset.folder / "manifest.json").write_text(text.replace('"size": ', '"size": 1'))
    assert run(store)["squares"].status == "RUN"
    (asset.folder / "manifest.json").unlink()
    assert run(store)["squares"].status == "RUN"
    assert run(store)["squares"].status == "HIT"


def test_published_files_are_read_only(store):
    asset = run(store)["squares"].asset
    assert not (asset.folder / "squares/n1.txt").stat().st_mode & 0o222


def test_a_publication_cut_off_before_its_rename_is_completed(store):
    """A kill between the manifest and the rename leaves a workspace with a manifest and no ledger."""
    asset = run(store)["squares"].asset
    asset.folder.replace(store.workspace(asset).folder)
    outcome = run(store)["squares"]
    assert outcome.status == "HIT"


def test_manifest_lists_inputs_back_to_raw_files(store, tmp_path):
    (tmp_path / "a.nc").write_bytes(b"data")
    raw = RawIndex(tmp_path / "raw.sqlite").read("files", [tmp_path / "a.nc"])
    assert [(f.size, f.path.name) for f in raw.files] == [(4, "a.nc")]
    shutil.copy(tmp_path / "a.nc", tmp_path / "b.nc")
    both = RawIndex(tmp_path / "raw.sqlite").read("files", [tmp_path / "a.nc", tmp_path / "b.nc"])
    assert both.fingerprint == raw.fingerprint, "equal content is equal input, whatever its names"


def test_raw_files_are_hashed_once_and_again_when_they_change(tmp_path):
    path = tmp_path / "a.nc"
    path.write_bytes(b"one")
    index = RawIndex(tmp_path / "raw.sqlite")
    first = index.read("files", [path])
    assert index.split([path])[1] == []
    path.write_bytes(b"two!")
    assert index.split([path])[1] == [path]
    assert index.read("files", [path]).fingerprint != first.fingerprint


def test_deep_reading_sees_a_change_that_keeps_size_and_time(tmp_path):
    path = tmp_path / "a.nc"
    path.write_bytes(b"one")
    stat = path.stat()
    index = RawIndex(tmp_path / "raw.sqlite")
    first = index.read("files", [path])
    with path.open("r+b") as file:
        file.write(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert index.read("files", [path]).fingerprint == first.fingerprint
    assert index.read("files", [path], deep=True).fingerprint != first.fingerprint


def test_a_plan_does_not_read_gigabytes_of_new_files(store, tmp_path, monkeypatch):
    (tmp_path / "a.nc").write_bytes(b"data")
    monkeypatch.setattr("tasks.stage.PLAN_HASH_LIMIT", 3)
    with Session(store, Silent(), planning=True).active():
        pending = raw_input("files", [tmp_path / "a.nc"])
    assert isinstance(pending, Pending)
    assert "files has 1 new or changed files" in pending.reason


def test_a_failing_unit_keeps_the_finished_ones(store, monkeypatch, tmp_path):
    monkeypatch.setattr(toy.toy_helper, "square", lambda n: 1 / 0 if n == 2 else n * n)
    with pytest.raises(ZeroDivisionError):
        run(store)
    monkeypatch.undo()
    plan = run(store, planning=True)["squares"]
    assert plan.label == "RESUME 2/4"
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    run(store)
    assert (tmp_path / "log").read_text().split() == ["n2", "n3"]


def test_path_of_a_missing_input_is_a_clear_error():
    from storage.raw import find_files

    with pytest.raises(ValueError, match="matches no file"):
        find_files([str(Path("nowhere") / "*.nc")], lambda path: True)
