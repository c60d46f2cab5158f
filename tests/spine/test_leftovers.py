"""What lies about in a workspace, in an asset or in a user's folder and was declared by nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.commands.report import write_report
from flows.runs import RunRecord, recorded
from flows.weather import PIPELINE
from storage.assets import Asset, AssetStore, Unit, verify
from storage.files import walk_files, write_atomic
from storage.hashing import file_sha256
from storage.manifest import MANIFEST, FileRecord, fingerprint
from storage.raw import find_files
from tasks.progress import Silent
from tasks.session import Session
from tasks.stage import Job, StageResult, raw_input, stage
from tasks.units import UnitOutput, Workers
from tests.command import millrace
from tests.spine.test_stage import run

LITTER = (".members-x/a.nc", "deep/.hidden/b.nc", "deep/c.nc.tmp", "undeclared.nc", "site.tmp/d.nc")


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def names(asset: Asset) -> list[str]:
    """Return all files that lie in an asset's folder, its manifest left out."""
    return sorted(name for name in walk_files(asset.folder) if name != MANIFEST)


def leave_litter(folder: Path, unit: Unit) -> UnitOutput:
    """Write a file, and others that nobody is told of."""
    write(folder, f"units/{unit.id}.nc", *(f"{unit.id}/{name}" for name in LITTER))
    return UnitOutput([f"units/{unit.id}.nc"])


def declare_hidden(folder: Path, unit: Unit) -> UnitOutput:
    """Declare a file that could never be published."""
    write(folder, ".members-x/a.nc")
    return UnitOutput([".members-x/a.nc"])


@stage("littered")
def littered(job: Job, *, hidden: bool) -> StageResult:
    """Units and files of the stage's own, before and after them."""
    write(job.folder, "before.txt", ".own/x.txt", "own.txt.tmp")
    job.map(declare_hidden if hidden else leave_litter, [job.unit(name, name) for name in ("a", "b")])
    write(job.folder, "own/after.txt")
    return StageResult()


@pytest.mark.parametrize("workers", ["inline", "2"])
def test_what_is_published_is_what_units_declare_and_the_stage_wrote_itself(store, workers):
    with Session(store, Silent(), workers=Workers.parse(workers)).active():
        asset = littered(hidden=False)
    declared = ["before.txt", "own/after.txt", "units/a.nc", "units/b.nc"]
    assert names(asset) == [file.path for file in asset.manifest.files] == declared
    assert not list(asset.folder.rglob(".*"))
    assert not (asset.folder / "deep").exists()


def test_a_hidden_file_that_a_unit_declares_is_not_lost_silently(session):
    with session.active(), pytest.raises(AssertionError, match=r"unit a declares \.members-x/a\.nc"):
        littered(hidden=True)


def test_what_a_killed_run_left_is_gone_and_its_finished_units_are_kept(store, tmp_path, monkeypatch):
    calm = run(store)["squares"].asset
    other = AssetStore(tmp_path / "other")
    workspace = other.workspace(other.asset(calm.kind, calm.key))
    write(workspace.folder, "squares/n0.txt", "squares/n3.txt", "index.txt", *LITTER)
    (workspace.folder / "squares/n0.txt").write_bytes((calm.folder / "squares/n0.txt").read_bytes())
    (unit,) = (unit for unit in calm.manifest.units if unit.id == "n0")
    workspace.record(Unit(unit.id, unit.key), unit.files, unit.result)
    write(other.root / "squares", f".{calm.key}.partial.0123.trash/x.txt")
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    outcome = run(other)["squares"]
    assert outcome.label == "RESUME 1/?"
    assert (tmp_path / "log").read_text().split() == ["n1", "n2", "n3"]
    assert names(outcome.asset) == names(calm)
    assert outcome.asset.fingerprint == calm.fingerprint
    assert [p.name for p in (other.root / "squares").iterdir()] == [calm.key], "what was half deleted is gone, too"


def poison(asset: Asset, name: str) -> None:
    """Publish a half-written file with an asset, as earlier versions did."""
    write(asset.folder, name)
    path = asset.folder / name
    extra = FileRecord(path=name, size=path.stat().st_size, sha256=file_sha256(path))
    files = (*asset.manifest.files, extra)
    earlier = {"schema_version": 1, "digest": ""}
    changed = asset.manifest.model_copy(update={"files": files, "fingerprint": fingerprint(files), **earlier})
    write_atomic(asset.folder / MANIFEST, changed.model_dump_json())


def test_an_asset_that_was_published_with_half_written_files_is_mended(store, tmp_path, monkeypatch):
    asset = run(store)["squares"].asset
    before = asset.fingerprint
    poison(asset, ".members-x/a.nc")
    root = store.root
    told = millrace("verify", root=root)
    assert told.returncode == 1
    assert ".members-x/a.nc is what a killed run left half-written" in " ".join(told.stdout.split())
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    mended = run(store)["squares"]
    assert mended.status == "RUN"
    assert not (tmp_path / "log").exists(), "every unit is kept"
    assert mended.asset.fingerprint == before
    assert verify(mended.asset, deep=True) == []
    assert millrace("verify", root=root).returncode == 0


@pytest.mark.parametrize("name", [".hidden", "squares/.hidden/a.txt", "squares/n1.txt.tmp", "squares/.n1.txt"])
def test_verify_names_whatever_does_not_belong(store, name):
    asset = run(store)["squares"].asset
    write(asset.folder, name)
    told = millrace("verify", root=store.root)
    assert told.returncode == 1
    assert f"{name} does not belong to the asset" in " ".join(told.stdout.split())
    run(store)
    assert not (asset.folder / name).exists()


# -- folders of the user's ------------------------------------------------------------------------------------------


def plan(*arguments: str, root: Path) -> str:
    result = millrace("plan", *arguments, root=root)
    assert result.returncode == 0, result.stderr
    return " ".join(result.stdout.split())


def test_hidden_names_are_passed_over_at_any_depth_and_in_globs(tmp_path):
    write(tmp_path, ".cache/era5/a.nc", ".cache/era5/.b.nc", ".cache/era5/.parts/c.nc", ".cache/era5/deep/d.nc")
    here = tmp_path / ".cache" / "era5"
    shown = [here / "a.nc", here / "deep/d.nc"]
    hidden = (here / ".b.nc", here / ".parts/c.nc")
    for pattern in (here, here / "**" / "*.nc"):
        found = find_files([str(pattern)], lambda path: path.suffix == ".nc")
        assert (found, found.hidden) == (shown, hidden), "the folder that is named may be hidden itself"
    assert find_files([str(here / ".parts")], lambda path: True) == [here / ".parts/c.nc"], "and so may what it is in"
    with pytest.raises(ValueError, match=r"hidden ones do not count \(1\)"):
        find_files([str(here / ".parts" / ".." / "*.b*")], lambda path: True)


def test_a_plan_and_a_run_say_what_they_pass_over(tmp_path):
    write(tmp_path / "raw", "a.nc", ".b.nc", ".parts/c.nc")
    settings = ("weather", "-p", "files", "--set", f"source.paths=['{tmp_path / 'raw'}']")
    words = f"era5_files: hidden files are passed over (2, e.g. {tmp_path / 'raw' / '.b.nc'})"
    assert words in plan(*settings, root=tmp_path / "root")
    told = millrace("run", *settings, "--engine", "inline", root=tmp_path / "root")
    assert words in " ".join(told.stdout.split())
    assert "1 of 1 raw files cannot be used" in told.stderr


def test_an_archive_of_fires_and_a_folder_of_images_are_read_without_what_is_hidden(tmp_path):
    write(tmp_path / "fires", "landscape/Input_Geotiff.tif", "landscape/Weathers/._a.csv", "landscape/Weathers/a.csv")
    source = f"source={{kind: archive, path: '{tmp_path / 'fires'}'}}"
    told = plan("wildfire", "--set", source, root=tmp_path / "root")
    assert "fire_archive: hidden files are passed over (1, e.g. " in told
    write(tmp_path / "images", "a.jpg", ".thumbnails/a.jpg", "list.tsv")
    source = f"{{kind: folder, path: '{tmp_path / 'images'}', captions: '{tmp_path / 'images' / 'list.tsv'}'}}"
    told = plan("microvlm", "--set", f"source={source}", root=tmp_path / "root")
    assert "image_text_lists: hidden files are passed over (1, e.g. " in told


def test_what_was_found_and_not_used_stands_in_every_page(store, tmp_path):
    write(tmp_path / "raw", "a.nc", *(f"{n:02d}.txt" for n in range(30)))
    told: list[str] = []
    reporter = Silent()
    reporter.message = told.append  # type: ignore[method-assign]
    with recorded(Session(store, reporter), RunRecord.begin("weather", "", {}, "inline")):
        raw_input("era5_files", find_files([str(tmp_path / "raw")], lambda path: path.suffix == ".nc"))
    first = f"{tmp_path / 'raw' / '00.txt'} is of another kind"
    assert told == [f"era5_files: 30 found there and not used: {first}; {told[0].partition('; ')[2]}"]
    assert told[0].endswith("; and 27 more")
    page = write_report(store, PIPELINE).read_text()
    assert f"<li>{first}</li>" in page
    assert "30 found beside the 1 files that were read" in page
    assert "<li>and 10 more</li>" in page
