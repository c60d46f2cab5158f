"""Roots on an object store, against a real S3 server: shared between machines, repaired, killed, read in parts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest

from storage.assets import Asset, AssetStore
from storage.remote import Objects, RemoteBytes, RemoteStore, working_folder
from storage.stores import open_store
from tests.command import millrace
from tests.conftest import REPOSITORY
from tests.spine.s3_server import BUCKET, on_another_machine, store
from tests.spine.test_crash import wait_for
from tests.spine.test_stage import run


def content(asset: Asset) -> dict[str, bytes]:
    return {f.path: (asset.folder / f.path).read_bytes() for f in asset.manifest.files}


def requests(address: str) -> list[dict]:
    """Return what the server was asked for."""
    recorded = urllib.request.urlopen(f"{address}/moto-api/recorder/download-recording", timeout=20).read()
    return [json.loads(line) for line in recorded.decode().splitlines()]


def recording(address: str, verb: str) -> None:
    """Start or stop noting what the server is asked for; a start forgets what was noted before."""
    if verb == "start":
        recording(address, "reset")
    request = urllib.request.Request(f"{address}/moto-api/recorder/{verb}-recording", data=b"", method="POST")
    urllib.request.urlopen(request, timeout=20).read()


def test_what_one_machine_makes_another_finds(url, monkeypatch, tmp_path):
    first = run(store(url))
    assert [o.status for o in first.values()] == ["RUN"] * 3
    other = on_another_machine(url, monkeypatch, tmp_path)
    plan = run(other, planning=True)
    assert [o.status for o in plan.values()] == ["HIT"] * 3
    assert plan["squares"].reason == f"5 files verified by size in {url}"
    assert [o.status for o in run(other, deep=True).values()] == ["HIT"] * 3
    assert not list(other.root.glob("squares/*/squares")), "a hit downloads nothing but manifests"


def test_inputs_are_fetched_when_a_stage_works(url, monkeypatch, tmp_path):
    run(store(url))
    other = on_another_machine(url, monkeypatch, tmp_path)
    outcomes = run(other, modulus=7)
    assert [o.status for o in outcomes.values()] == ["HIT", "RUN", "RUN"]
    local = run(AssetStore(tmp_path / "local"), modulus=7)
    assert {n: o.asset.fingerprint for n, o in outcomes.items()} == {n: o.asset.fingerprint for n, o in local.items()}


def test_units_are_taken_over_by_copies_within_the_store(url, address, monkeypatch, tmp_path):
    run(store(url), count=4)
    other = on_another_machine(url, monkeypatch, tmp_path)
    recording(address, "start")
    longer = run(other, count=5)["squares"].asset
    recording(address, "stop")
    puts = [r for r in requests(address) if r["method"] == "PUT" and f"{longer.key}/squares/" in r["url"]]
    copied = {r["url"] for r in puts if "x-amz-copy-source" in {name.lower() for name in r["headers"]}}
    assert len(copied) == 4, "four of five squares"
    assert len({r["url"] for r in puts}) == 5
    assert content(longer) == content(run(AssetStore(tmp_path / "local"), count=5)["squares"].asset)


@pytest.mark.parametrize("here", [True, False], ids=["with copies here", "without"])
def test_a_deleted_or_cut_object_is_noticed_and_alone_made_again(url, monkeypatch, tmp_path, here):
    asset = run(store(url))["squares"].asset
    before = content(asset)
    objects = Objects(url)
    objects.delete([f"squares/{asset.key}/squares/n1.txt"])
    objects.write(f"squares/{asset.key}/squares/n2.txt", b"cut")
    machine = store(url) if here else on_another_machine(url, monkeypatch, tmp_path)
    plan = run(machine, planning=True)["squares"]
    assert plan.status == "RUN"
    assert plan.reason == f"output file squares/n1.txt is missing in {url} and 1 more"
    log = tmp_path / "log"
    monkeypatch.setenv("TOY_LOG", str(log))
    again = run(machine)["squares"].asset
    assert machine.verify(again, deep=True) == []
    assert content(again) == before
    made = set(log.read_text().split()) if log.exists() else set()
    assert made == (set() if here else {"n1", "n2"})


def test_changed_content_is_found_by_a_deep_look(url):
    asset = run(store(url))["squares"].asset
    name = f"squares/{asset.key}/squares/n3.txt"
    data = Objects(url).read(name)
    Objects(url).write(name, bytes(len(data)))
    (damage,) = store(url).verify(asset, deep=True)
    assert damage.path == "squares/n3.txt"
    assert "SHA-256 differs" in damage.what
    run(store(url), deep=True)
    assert store(url).verify(asset, deep=True) == []


def test_without_its_manifest_an_asset_is_none(url):
    asset = run(store(url))["squares"].asset
    Objects(url).delete([f"squares/{asset.key}/manifest.json"])
    assert not store(url).published(asset)
    assert asset.key not in {a.key for a in store(url).assets("squares")}
    assert run(store(url))["squares"].status == "RUN"
    assert store(url).verify(asset, deep=True) == []


def test_killed_at_work_it_resumes_and_uploads_nothing_twice(url, address, tmp_path):
    folder, log = working_folder(url), tmp_path / "log"
    environment = os.environ | {"TOY_LOG": str(log), "TOY_PAUSE": "0.3"}
    program = (
        "import sys; from pathlib import Path; from storage.stores import open_store; from tests.spine import toy\n"
        "from tasks.progress import Silent; from tasks.session import Session; from tasks.units import Workers\n"
        "session = Session(open_store(Path(sys.argv[1])), Silent(), workers=Workers.parse('2'))\n"
        "with session.active(): print(toy.squares(count=12, first=0).fingerprint)"
    )
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "cwd": REPOSITORY}
    process = subprocess.Popen([sys.executable, "-c", program, str(folder)], env=environment, **quiet)
    wait_for(lambda: len(list(folder.glob("squares/*.partial/.units/n*.json"))) >= 4)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = {path.stem for path in folder.glob("squares/*.partial/.units/n*.json")}
    assert not store(url).assets(), "without a manifest there is no asset"

    recording(address, "start")
    end = subprocess.run([sys.executable, "-c", program, str(folder)], env=environment | {"TOY_PAUSE": "0"}, **quiet)
    recording(address, "stop")
    put = {r["url"].rpartition("/")[2].partition(".")[0] for r in requests(address) if r["method"] == "PUT"}
    assert "n11" in put
    assert done.isdisjoint(put), "what was uploaded before the kill is not uploaded again"
    (asset,) = store(url).assets("squares")
    assert store(url).verify(asset, deep=True) == []
    assert end.stdout.split() == [asset.fingerprint]


def test_the_command_line_works_on_a_bucket(url, monkeypatch, tmp_path):
    settings = ["-p", "demo", "--engine", "inline", "--set", "source.images=20", "--set", "select.mode=metadata"]
    result = millrace("run", "microvlm", *settings, root=url)
    assert result.returncode == 0, result.stderr
    monkeypatch.setenv("MILLRACE_CACHE", str(tmp_path / "two"))
    assert millrace("run", "microvlm", *settings, root=url).stdout.count("HIT") == 2
    status = millrace("status", root=url).stdout
    assert url in status
    assert "image_text_rows" in status
    shown = millrace("show", "image_text_rows", root=url).stdout
    assert f"{url}/image_text_rows/" in shown.replace("\n", "")
    assert "removed since" not in shown
    assert millrace("verify", "--deep", root=url).returncode == 0
    assert millrace("pin", "image_text_rows", root=url).returncode == 0
    assert list(store(url).pins())
    assert millrace("pin", "image_text_rows", "--remove", root=url).returncode == 0
    assert not store(url).pins()


def test_parts_of_files_are_read_where_they_lie(url):
    asset = run(store(url))["squares"].asset
    source = RemoteBytes(f"{url}/squares/{asset.key}")
    name = "squares/n3.txt"
    assert source.sizes()[name] == (asset.folder / name).stat().st_size
    assert source.read(name, 2, 5) == (asset.folder / name).read_bytes()[2:7]


def test_a_loader_reads_tars_from_the_store(url, tmp_path):
    from storage.image_text_dataset import ImageTextDataset
    from tests.image_text.loader_shards import write_shards

    folders = write_shards(tmp_path)
    for path in folders.shards.iterdir():
        Objects(url).write(f"tars/{path.name}", path)
    here = ImageTextDataset(folders.shards, folders.index, "train", side=32)
    there = ImageTextDataset(RemoteBytes(f"{url}/tars"), folders.index, "train", side=32)
    assert len(here) == len(there) > 0
    for n in range(len(here)):
        assert np.array_equal(here[n]["image"], there[n]["image"])
        assert here[n]["caption"] == there[n]["caption"]


def test_what_is_wrong_with_a_root_is_one_sentence(url, monkeypatch):
    with pytest.raises(ValueError, match="there is no such bucket"):
        open_store(working_folder("s3://nowhere/x")).assets()
    with pytest.raises(ValueError, match="give a folder, or s3://bucket/prefix"):
        working_folder("ftp://somewhere/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(ValueError, match="does not answer"):
        open_store(working_folder(f"s3://{BUCKET}/x")).assets()


def test_roots_on_this_machine_know_nothing_of_it(tmp_path):
    code = (
        "import sys; from pathlib import Path; from storage.stores import open_store\n"
        "open_store(Path(sys.argv[1])).assets(); assert not {'obstore', 'storage.remote'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, check=True)
    assert not isinstance(open_store(tmp_path), RemoteStore)


def test_what_lies_about_is_not_uploaded_and_what_does_not_belong_is_named(url):
    machine = store(url)
    asset = run(machine)["squares"].asset
    key = f"squares/{asset.key}"
    machine.remove(asset)
    litter = machine.workspace(asset).folder / ".members-x" / "a.nc"
    litter.parent.mkdir(parents=True)
    litter.touch()
    asset = run(machine)["squares"].asset
    assert set(Objects(url).list(key)) == {f"{key}/{f.path}" for f in asset.manifest.files} | {f"{key}/manifest.json"}
    Objects(url).write(f"{key}/.members-x/a.nc", b"half")
    (damage,) = machine.verify(asset)
    assert (damage.path, damage.what) == (".members-x/a.nc", f"does not belong to the asset in {url}")
    run(machine)
    assert machine.verify(asset, deep=True) == []
