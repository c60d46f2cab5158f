"""From a web site that misbehaves to shards: every good image arrives, no bad one does, and kills lose nothing."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from configs.image_text import Crawling, Fetching, ImageFormat, Retry
from storage.assets import Asset, AssetStore, verify
from storage.shard_set import STATUSES
from tasks.image_text.shards import image_text_shards
from tasks.progress import Silent
from tasks.session import Session
from tasks.units import Workers
from tests.conftest import shared_data
from tests.image_text.pictures import encoded, scenery
from tests.image_text.sites import files_of, listed_rows, listed_site, make_site, noisy, sha256, url

FETCHING = Fetching(deadline_seconds=1.5, backoff_seconds=0.05, max_megabytes=2, longest_pause_seconds=3)


def crawl(root: Path, place: Path, rows: list[dict[str, Any]], *, workers: str = "inline", **options: Any) -> Asset:
    """Run the stages over a site and its rows."""
    images_per_shard = options.pop("images_per_shard", 20)
    settings = {"fetching": FETCHING, "crawling": Crawling(), "image": ImageFormat(), "retry": Retry()} | options
    session = Session(AssetStore(root), Silent(), workers=Workers.parse(workers))
    with session.active():
        return image_text_shards(
            rows=listed_rows(rows=rows, images_per_shard=images_per_shard),
            images=listed_site(place=str(place)),
            images_per_shard=images_per_shard,
            **settings,
        )


def table(asset: Asset) -> list[dict[str, Any]]:
    """Return the rows of all shards."""
    return [row for path in sorted(asset.folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """The real images and everything that goes wrong, with the expected status of each page."""
    place = tmp_path_factory.mktemp("site")
    images = {path.name: path.read_bytes() for path in sorted((shared_data("image_text") / "images").glob("*.jpg"))}
    return place, make_site(place, images)


@pytest.fixture(scope="module")
def rows(site) -> list[dict[str, Any]]:
    """One row per page, good and bad ones mixed."""
    return [
        {"url": url(path), "caption": f"about {path}"} for path in sorted(site[1], key=lambda p: sha256(p.encode()))
    ]


@pytest.fixture(scope="module")
def shards(tmp_path_factory, site, rows) -> Asset:
    return crawl(tmp_path_factory.mktemp("shards"), site[0], rows, workers="2")


def test_every_good_image_arrives_no_bad_one_does_and_every_failure_has_its_status(site, shards):
    place, expected = site
    found = {row["url"]: row for row in table(shards)}
    statuses = {path: found[url(path)]["status"] for path in expected}
    assert statuses == expected
    assert set(statuses.values()) <= set(STATUSES)
    for path in expected:
        row = found[url(path)]
        if (place / path[1:]).exists() and expected[path] == "ok":
            content = (place / path[1:]).read_bytes()
            assert (row["sha256"], row["bytes"]) == (sha256(content), len(content))
            assert (row["original_width"], row["original_height"]) == Image.open(io.BytesIO(content)).size
    assert shards.manifest.counts["stored"] == sum(status == "ok" for status in expected.values())


def test_members_lie_where_the_table_says_and_tell_the_whole_story(shards):
    for path in sorted(shards.folder.glob("*.tar")):
        data = path.read_bytes()
        stored = [row for row in pq.read_table(path.with_suffix(".parquet")).to_pylist() if row["status"] == "ok"]
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        assert [m.name for m in members] == [f"{r['key']}.{kind}" for r in stored for kind in ("jpg", "json", "txt")]
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}
        for row in stored:
            jpg, txt, about = (
                data[row[f"{kind}_offset"] :][: row[f"{kind}_size"]] for kind in ("jpg", "txt", "json")
            )  # fmt: skip
            assert sha256(jpg) == row["stored_sha256"]
            assert Image.open(io.BytesIO(jpg)).size == (row["width"], row["height"])
            assert txt.decode() == row["caption"]
            facts = json.loads(about)
            assert facts["url"] == row["url"]
            assert [text["caption"] for text in facts["rows"]] == [row["caption"]]
        stats = json.loads(path.with_name(f"{path.stem}_stats.json").read_bytes())
        assert stats["tar_sha256"] == sha256(data)
        assert stats["tar_bytes"] == len(data)
        assert stats["successes"] == len(stored)
        assert stats["count"] == stats["successes"] + stats["failed_to_download"] + stats["failed_to_resize"]


@pytest.mark.long
def test_another_run_gives_the_same_bytes_whatever_workers_and_connections(tmp_path, site, rows, shards):
    again = crawl(tmp_path, site[0], rows, crawling=Crawling(connections=7, per_host=3))
    assert files_of(again) == files_of(shards)


def test_rows_of_one_image_are_fetched_once_and_share_its_sample(tmp_path):
    place = tmp_path / "site"
    place.mkdir()
    make_site(place, {"a.jpg": noisy(1)})
    texts = [{"question": f"How many {n}?", "answer": str(n), "extra": f'{{"n": {n}}}'} for n in range(3)]
    shards = crawl(tmp_path, place, [{"image": 0, "url": url("/a.jpg"), **text} for text in texts])
    assert [row["status"] for row in table(shards)] == ["ok"] * 3
    with tarfile.open(shards.folder / "00000.tar") as tar:
        assert tar.getnames() == ["000000000.jpg", "000000000.json", "000000000.txt"]
        facts = json.load(tar.extractfile("000000000.json"))
        assert tar.extractfile("000000000.txt").read() == b"How many 0?\n0"
    assert [text["answer"] for text in facts["rows"]] == ["0", "1", "2"]


def test_an_image_whose_hash_is_not_the_listed_one_is_refused(tmp_path):
    place = tmp_path / "site"
    place.mkdir()
    make_site(place, {"a.jpg": noisy(1), "b.jpg": noisy(2)})
    rows = [{"url": url("/a.jpg"), "sha256": sha256(noisy(1))}, {"url": url("/b.jpg"), "sha256": sha256(noisy(1))}]
    assert [row["status"] for row in table(crawl(tmp_path, place, rows))] == ["ok", "hash_mismatch"]


def test_failed_images_are_retried_into_patch_shards_and_good_shards_stay(tmp_path):
    place = tmp_path / "site"
    place.mkdir()
    expected = make_site(place, {f"{n}.jpg": noisy(n) for n in range(6)})
    rows = [{"url": url(path)} for path in sorted(expected)]
    once = Fetching(**FETCHING.model_dump() | {"retries": 0})
    first = crawl(tmp_path, place, rows, fetching=once)
    assert {r["url"]: r["status"] for r in table(first)}[url("/broken_once")] == "http_5xx"
    inodes = {path.name: path.stat().st_ino for path in first.folder.glob("0*")}

    second = crawl(tmp_path, place, rows, fetching=once, retry=Retry(rounds=1, classes=("http_5xx", "timeout")))
    kept = {path.name: path.stat().st_ino for path in second.folder.glob("0*")}
    assert kept == inodes, "good shards are taken over, not fetched or written again"
    retried = {row["url"]: row["status"] for row in pq.read_table(second.folder / "retry1-00000.parquet").to_pylist()}
    assert retried.keys() == {url(p) for p in ("/broken", "/broken_once", "/drip")}
    assert set(retried.values()) <= set(STATUSES)
    names = {row["key"]: row["url"] for row in table(first)}
    for row in pq.read_table(second.folder / "retry1-00000.parquet").to_pylist():
        assert names[row["key"]] == row["url"], "an image keeps its key"
    stored = {row["url"] for row in table(second) if row["status"] == "ok"}
    assert second.manifest.counts["stored"] == len(stored)
    assert second.manifest.counts["images"] == len(rows)


def test_a_deleted_shard_alone_is_made_again(tmp_path, site, rows):
    shards = crawl(tmp_path, site[0], rows)
    before = files_of(shards)
    (shards.folder / "00001.tar").unlink()
    session = Session(AssetStore(tmp_path), Silent())
    untouched = (shards.folder / "00000.tar").stat().st_ino
    again = crawl(tmp_path, site[0], rows)
    assert session.outcomes == []
    assert files_of(again) == before
    assert verify(again, deep=True) == []
    assert (again.folder / "00000.tar").stat().st_ino == untouched


def test_local_files_and_parts_of_tars_need_no_web(tmp_path, session):
    from tasks.stage import raw_input

    data = encoded(scenery(200, 150, 5))
    (tmp_path / "a.jpg").write_bytes(data)
    (tmp_path / "b.tar").write_bytes(b"x" * 700 + noisy(3) + b"y" * 9)
    part = f"raw:{sha256((tmp_path / 'b.tar').read_bytes())}@700+{len(noisy(3))}"
    rows = [{"place": f"raw:{sha256(data)}", "caption": "one"}, {"place": part, "caption": "two"}]
    with session.active():
        shards = image_text_shards(
            rows=listed_rows(rows=rows, images_per_shard=10),
            images=raw_input("images", [tmp_path / "a.jpg", tmp_path / "b.tar"]),
            images_per_shard=10,
            fetching=FETCHING,
            crawling=Crawling(),
            image=ImageFormat(),
            retry=Retry(),
        )
    assert [(row["status"], row["sha256"]) for row in table(shards)] == [("ok", sha256(data)), ("ok", sha256(noisy(3)))]
