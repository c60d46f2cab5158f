"""A crawl killed at twenty random moments: no shard is unreadable, nothing is lost, doubled or fetched in vain."""

from __future__ import annotations

import json
import os
import random
import signal
import tarfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from storage.assets import Asset, Workspace, verify
from tasks.samples.site_process import serve
from tasks.samples.website import Page, write_site
from tests import warm
from tests.image_text.crawler import IMAGES_PER_SHARD
from tests.image_text.sites import files_of, noisy

IMAGES = 160
KILLS = 20


def start(root: Path, rows: Path, workers: str) -> warm.Process:
    return warm.start("tests.image_text.crawler", str(root), str(rows), workers)


def finish(root: Path, rows: Path, workers: str) -> tuple[str, Asset]:
    status, folder = start(root, rows, workers).communicate()[0].split()
    return status, Asset(Path(folder))


def finished_shards(root: Path) -> set[str]:
    """Return the shards in the ledger of the killed run."""
    return {path.stem for path in root.glob("image_text_shards/*.partial/.units/*.json")}


def wait_for_more_than(root: Path, known: set[str], process: warm.Process) -> None:
    """Wait until a shard that was not known is finished."""
    deadline = time.monotonic() + 60
    while not finished_shards(root) - known and process.poll() is None:
        assert time.monotonic() < deadline, "no shard was finished"
        time.sleep(0.005)


@pytest.mark.long
def test_killed_at_random_moments_nothing_is_lost_doubled_or_unreadable(tmp_path):
    site, rows = tmp_path / "site", tmp_path / "rows.json"
    site.mkdir()
    for n in range(IMAGES):
        (site / f"{n}.jpg").write_bytes(noisy(n))
    write_site(site, {f"/{n}.jpg": Page(file=f"{n}.jpg", delay=0.01) for n in range(IMAGES)})
    chance = random.Random(7)
    with serve(site) as server:
        listed = [{"url": f"{server.address}/{n}.jpg", "caption": f"picture {n}"} for n in range(IMAGES)]
        rows.write_text(json.dumps(listed))
        _, calm = finish(tmp_path / "calm", rows, "2")
        asked_calmly = server.requests()
        assert set(asked_calmly.values()) == {1}

        root = tmp_path / "killed"
        known: set[str] = set()
        for kill in range(KILLS):
            process = start(root, rows, "2" if kill % 4 == 0 else "inline")
            if kill % 2:
                wait_for_more_than(root, known, process)
            time.sleep(chance.uniform(0.0, 0.15 if kill % 2 else 0.6))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert known <= finished_shards(root), "a finished shard never gets lost"
            known = finished_shards(root)
        assert 0 < len(known) < IMAGES / IMAGES_PER_SHARD, "the kills hit the crawl while it worked"
        (workspace,) = root.glob("image_text_shards/*.partial")
        for record in Workspace(workspace).finished().values():
            with tarfile.open(workspace / f"{record.id}.tar") as tar:
                assert len(tar.getnames()) == 3 * IMAGES_PER_SHARD

        before = server.requests()
        status, shards = finish(root, rows, "2")
        after = server.requests()
    assert status == "RESUME"
    refetched = {path for path in after if after[path] > before.get(path, 0)}
    missing = IMAGES - IMAGES_PER_SHARD * len(known)
    assert len(refetched) == missing, "finished shards are not fetched again"
    assert files_of(shards) == files_of(calm)
    assert verify(shards, deep=True) == []
    fetched = [row["url"] for path in shards.folder.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert sorted(fetched) == sorted(row["url"] for row in listed)
