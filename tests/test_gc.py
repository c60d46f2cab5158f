"""What `millrace gc` keeps and removes: by run records, pins and age, and nothing else."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from flows.commands.gc import exclusive_size
from flows.runs import MOST_DAYS, RUNS, RunRecord, load_runs
from storage.assets import Asset, AssetStore, describe_size
from storage.manifest import now
from tests import warm
from tests.command import millrace
from tests.spine.ageing import let_days_pass
from tests.spine.toy_pipeline import plan_toy, run_toy


def killed_run(root: Path, unit: str, profile: str = "demo", **fields: object) -> bool:
    """Run the toy pipeline in a process that kills itself at a unit, if it comes to do that; return whether it did."""
    settings = [f"{name}={value}" for name, value in fields.items()]
    program = "tests.spine.toy_pipeline"
    process = warm.start(program, str(root), profile, *settings, TOY_SUICIDE=unit)
    process.communicate(timeout=400)
    assert process.returncode in (0, -signal.SIGKILL)
    return process.returncode != 0


def gc(root: Path, *arguments: str) -> str:
    """Collect garbage without being asked; return what it says."""
    result = millrace("gc", "--yes", *arguments, root=root)
    assert result.returncode == 0, result.stderr
    return result.stdout


def names(store: AssetStore) -> set[str]:
    return {asset.name for asset in store.assets()}


def short(name: str) -> str:
    """Return an asset's name as tables have it."""
    kind, _, key = name.partition("/")
    return f"{kind}/{key[:12]}"


def assets_of(record: RunRecord) -> set[str]:
    return {stage.asset for stage in record.stages}


def test_what_is_young_stays_and_what_is_old_and_superseded_goes_with_its_reason(store):
    old = run_toy(store.root, modulus=7)
    new = run_toy(store.root, modulus=11)
    assert "nothing to remove: all that is here is younger than 30 days" in gc(store.root)
    let_days_pass(store, 60)
    old = load_runs(store)[1]
    gone = assets_of(old) - assets_of(new)
    assert len(gone) == 2, "both runs share the squares"

    dry = millrace("gc", "--dry-run", root=store.root).stdout
    for name in gone:
        used = f"last used {old.started:%Y-%m-%d} by toy/demo (run {old.id})"
        assert re.search(rf"^{short(name)} +[\d.]+ k?B +{re.escape(used)}$", dry, re.MULTILINE), dry
    size = sum(exclusive_size([store.asset(*name.split("/")).folder]) for name in gone)
    assert dry.splitlines()[-1] == f"would free {describe_size(size)}"
    assert names(store) == assets_of(old) | assets_of(new)

    assert gc(store.root).splitlines()[-1] == f"freed {describe_size(size)}"
    assert names(store) == assets_of(new)


def test_it_asks_first(store):
    run_toy(store.root, modulus=7)
    run_toy(store.root, modulus=11)
    result = millrace("gc", "--age", "0", root=store.root)
    assert "Remove these 2?" in result.stdout
    assert result.returncode != 0, "nobody answered"
    assert len(names(store)) == 5


def test_days_that_keep_everything_can_be_chosen_and_are_bounded_by_what_records_tell(store):
    run_toy(store.root, modulus=7)
    run_toy(store.root, modulus=11)
    let_days_pass(store, 40)
    assert "nothing to remove" in gc(store.root, "--age", "50")
    refused = millrace("gc", "--yes", "--age", "91", root=store.root)
    assert refused.returncode == 2
    assert "--age 91: records of runs are kept for 90 days" in refused.stderr
    gc(store.root, "--age", "35")
    assert len(names(store)) == 3


def test_a_hit_is_a_use(store):
    first = run_toy(store.root, modulus=7)
    let_days_pass(store, 60)
    run_toy(store.root, modulus=7)
    run_toy(store.root, modulus=11)
    assert "nothing to remove" in gc(store.root)
    assert assets_of(first) <= names(store)


def test_a_pin_keeps_an_asset_and_what_it_was_made_from(store):
    pinned = run_toy(store.root, count=5)
    run_toy(store.root)
    let_days_pass(store, 60)
    total = next(s.asset for s in pinned.stages if s.stage == "total")
    assert millrace("pin", total, root=store.root).returncode == 0
    gc(store.root)
    stay = {s.asset for s in pinned.stages if s.stage != "label"}
    assert stay <= names(store)
    assert len(names(store)) == 5
    store.unpin(store.asset(*total.split("/")))
    gc(store.root)
    assert len(names(store)) == 3


def test_finished_units_of_a_killed_run_stay_and_are_gone_on_with(store):
    assert killed_run(store.root, "n3", count=6)
    let_days_pass(store, 80)
    assert "nothing to remove" in gc(store.root, "--age", "0")
    assert plan_toy(store.root, count=6)["squares"].label == "RESUME 3/6"
    assert run_toy(store.root, count=6).stages[0].status == "RESUME 3/6"


def test_a_newer_unfinished_run_takes_neither_results_nor_older_ones_away(store):
    finished = run_toy(store.root)
    assert killed_run(store.root, "n5", count=9)
    let_days_pass(store, 80)
    gc(store.root, "--age", "0")
    assert assets_of(finished) <= names(store)
    assert plan_toy(store.root, count=9)["squares"].status == "RESUME"


def test_unfinished_work_of_runs_that_are_superseded_goes_when_it_is_old(store):
    assert killed_run(store.root, "n3", count=6)
    run_toy(store.root)
    assert "nothing to remove" in gc(store.root), "it is young"
    let_days_pass(store, 60)
    said = gc(store.root)
    assert re.search(r"squares/\w{12} +\d+ B +unfinished; last used [\d-]+ by toy/demo \(run ", said)
    assert not store.workspaces()


def test_what_no_run_leads_to_goes_by_its_age(store):
    lost = run_toy(store.root, modulus=7)
    assert killed_run(store.root, "n5", count=6)
    for record in load_runs(store):
        store.remove_notes(RUNS, [f"{record.id}.json"])
    run_toy(store.root)
    assert "nothing to remove" in gc(store.root)
    let_days_pass(store, 60)
    said = gc(store.root)
    made = f"{now() - timedelta(days=60):%Y-%m-%d}"
    assert len(re.findall(rf"^(?:total|label)/\w+ .*no run leads here, made {made} *$", said, re.MULTILINE)) == 2
    assert re.search(rf"^squares/\w+ .*unfinished; no run leads here, last written {made} *$", said, re.MULTILINE)
    assert not names(store) & {stage.asset for stage in lost.stages if stage.stage != "squares"}
    assert not store.workspaces()


def test_every_pipeline_and_profile_counts_wherever_its_file_is_by_now(store):
    records = [run_toy(store.root, profile, text=profile) for profile in ("demo", "", "/gone/mine.yaml")]
    let_days_pass(store, 80)
    assert "nothing to remove" in gc(store.root, "--age", "0")
    assert set.union(*map(assets_of, records)) == names(store)


def test_profiles_of_ones_own_and_overrides_count_from_any_working_directory(tmp_path):
    profile, root = tmp_path / "mine.yaml", tmp_path / "assets"
    profile.write_text("source: {kind: sample, images: 20}\nselect: {mode: metadata}\n")
    chosen = ("-p", str(profile), "--engine", "inline", "--workers", "inline", "--set", "source.images=21")
    made = millrace("run", "microvlm", *chosen, root=root)
    assert made.returncode == 0, made.stderr
    mistaken = millrace("run", "wildfire", "--engine", "inline", "--set", "source={kind: archive, path: no}", root=root)
    assert mistaken.returncode == 2
    profile.unlink()
    store = AssetStore(root)
    let_days_pass(store, 80)
    result = millrace("gc", "--yes", "--age", "0", root=root, cwd=tmp_path, PYTHONPATH=str(warm.REPOSITORY))
    assert "nothing to remove" in result.stdout, result.stderr
    assert len(names(store)) == 2


def test_records_of_versions_before_count(store):
    """They have the assets of finished stages alone, and fields of configurations that are no more."""
    record = run_toy(store.root)
    facts = json.loads(record.model_dump_json(exclude={"leads_to", "inputs"}))
    facts["config"] = {"modulo": 3}
    store.write_note(RUNS, f"{record.id}.json", json.dumps(facts))
    let_days_pass(store, 80)
    assert "nothing to remove" in gc(store.root, "--age", "0")
    assert names(store) == assets_of(record)


def test_without_any_record_nothing_goes(store):
    run_toy(store.root)
    shutil.rmtree(store.root / RUNS)
    refused = millrace("gc", "--yes", "--age", "0", root=store.root)
    assert refused.returncode == 2
    assert "has no record of any run, so gc cannot tell what is still wanted; run your pipelines once" in refused.stderr
    assert len(names(store)) == 3
    assert millrace("pin", "total", root=store.root).returncode == 0
    assert re.search(r"label/\w{12} .*no run leads here, made ", gc(store.root, "--age", "0"))
    assert {name.split("/")[0] for name in names(store)} == {"squares", "total"}


def test_a_record_that_cannot_be_read_stops_gc(store):
    record = run_toy(store.root)
    store.write_note(RUNS, f"{record.id}.json", "{}")
    refused = millrace("gc", "--yes", "--age", "0", root=store.root)
    assert refused.returncode == 2
    assert f"{record.id}.json is no run record that this version understands" in refused.stderr
    assert len(names(store)) == 3


def test_a_running_run_counts_however_long_it_runs(store):
    run_toy(store.root, count=5)
    run_toy(store.root)
    let_days_pass(store, 60)
    kept = load_runs(store)[1]
    kept.state, kept.ended = "Running", None
    kept.save(store)
    assert "nothing to remove" in gc(store.root)


def test_room_that_assets_share_is_counted_once_and_only_when_the_last_one_goes(store):
    small, big = (run_toy(store.root, count=count).stages[0].asset for count in (4, 6))
    folders = [store.asset(*name.split("/")).folder for name in (small, big)]
    of_units = sum(path.stat().st_size for path in (folders[0] / "squares").iterdir())
    assert exclusive_size(folders[:1]) == sum(f.stat().st_size for f in folders[0].rglob("*.*")) - of_units
    whole = {path.stat().st_ino: path.stat().st_size for f in folders for path in f.rglob("*") if path.is_file()}
    assert exclusive_size(folders) == sum(whole.values())


def test_old_records_go_when_a_run_begins_except_the_newest_of_each_profile(store):
    for profile in ("a", "a", "b"):
        run_toy(store.root, profile)
    assert killed_run(store.root, "n5", "b", count=6)
    let_days_pass(store, MOST_DAYS + 1)
    by_profile = {p: [r.id for r in load_runs(store) if r.profile == p] for p in ("a", "b")}
    run_toy(store.root, "c")
    left = {record.id for record in load_runs(store)}
    assert left & {*by_profile["a"]} == {by_profile["a"][0]}
    assert left & {*by_profile["b"]} == {*by_profile["b"]}, "the newest, and the newest that finished"
    run_toy(store.root, "a")
    assert by_profile["a"][0] in {r.id for r in load_runs(store)}, "when the new run began, the old one was needed"
    run_toy(store.root, "c")
    assert [r.profile for r in load_runs(store)] == ["c", "a", "c", "b", "b"]


@pytest.mark.parametrize("seed", range(2))
def test_no_sequence_of_runs_kills_and_collections_loses_what_the_newest_runs_lead_to(store, seed):
    chance = random.Random(seed)
    finished: dict[str, dict[str, int]] = {}
    newest: dict[str, dict[str, int]] = {}
    for _ in range(6):
        profile = chance.choice("ab")
        fields = {"count": chance.randrange(2, 16), "modulus": chance.choice([7, 11])}
        fate = chance.choice(["killed", "whole"])
        if fate == "whole" or not killed_run(store.root, f"n{fields['count'] - 1}", profile, **fields):
            run_toy(store.root, profile, **fields)
            finished[profile] = fields
        newest[profile] = fields
        let_days_pass(store, chance.choice([0, 20]))
        wanted = [*finished.values(), *newest.values()]
        before = [[(o.stage, o.label) for o in plan_toy(store.root, **w).values()] for w in wanted]
        millrace("gc", "--yes", "--age", str(chance.choice([0, 30])), root=store.root)
        assert [[(o.stage, o.label) for o in plan_toy(store.root, **w).values()] for w in wanted] == before
        assert all(store.verify(asset, deep=True) == [] for asset in store.assets())


def test_ages_are_those_of_manifests(store):
    """A copy of a root has new times in its file system."""
    name = run_toy(store.root).stages[0].asset
    let_days_pass(store, 10)
    asset: Asset = store.asset(*name.split("/"))
    (holding,) = [h for h in store.holdings() if h.asset.name == name]
    assert now() - holding.changed >= timedelta(days=10)
    assert holding.changed == asset.manifest.created_at
