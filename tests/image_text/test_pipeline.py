"""The image-text pipelines through the `millrace` command: generated lists to an index that a loader reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from storage.assets import AssetStore
from storage.image_text_dataset import ImageTextDataset
from tests.command import millrace
from tests.once import only

PROFILE: dict[str, Any] = {
    "source": {"kind": "sample", "images": 60, "side": 160, "misbehaving_share": 0.7},
    "images_per_shard": 30,
    "image": {"side": 96},
    "fetching": {"deadline_seconds": 2, "backoff_seconds": 0.05, "max_megabytes": 2},
    "splits": {"validation_share": 0.2, "test_share": 0.2},
}
STAGES = ("image_text_sample", "image_text_rows", "image_text_shards", "image_text_index", "image_text_report")


def run(pipeline: str, root: Path, profile: Path, *more: str) -> str:
    result = millrace("run", pipeline, "-p", str(profile), "--engine", "inline", *more, root=root)
    assert result.returncode == 0, result.stderr + result.stdout
    assert "Warning" not in result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def profile(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("profile") / "tiny.yaml"
    path.write_text(yaml.safe_dump(PROFILE))
    return path


@pytest.fixture(scope="module")
def captions(tmp_path_factory, profile) -> Path:
    root = tmp_path_factory.mktemp("captions")
    assert "5 stages: 5 worked, 0 cached" in run("microvlm", root, profile)
    return root


def test_every_url_meets_the_fate_that_the_generator_foretold(captions):
    truth = pq.read_table(only(captions, "image_text_sample").folder / "truth.parquet").to_pylist()
    shards = only(captions, "image_text_shards").folder
    statuses = {r["url"]: r["status"] for p in shards.glob("*.parquet") for r in pq.read_table(p).to_pylist()}
    assert statuses == {row["url"]: row["expected"] for row in truth}
    assert len(set(statuses.values())) > 15


@pytest.mark.long
def test_another_run_and_another_place_change_nothing(captions, profile, tmp_path):
    assert "5 stages: 0 worked, 5 cached" in run("microvlm", captions, profile)
    run("microvlm", tmp_path, profile, "--workers", "inline")
    for kind in STAGES:
        assert only(tmp_path, kind).fingerprint == only(captions, kind).fingerprint, kind


def test_a_loader_reads_what_the_pipeline_wrote(captions):
    shards, index = only(captions, "image_text_shards").folder, only(captions, "image_text_index").folder
    seen = set()
    for split in ("train", "validation", "test"):
        dataset = ImageTextDataset(shards, index, split, side=64)
        for sample in (dataset[n] for n in range(len(dataset))):
            assert sample["image"].shape == (3, 64, 64)
            assert sample["caption"]
            assert sample["key"] not in seen, "one caption per image, and every image on one side"
            seen.add(sample["key"])
    assert seen


def test_settings_of_the_crawl_change_no_key_and_a_retry_keeps_the_shards(captions, profile):
    plan = millrace("plan", "microvlm", "-p", str(profile), "--set", "crawling.per_host=3", root=captions).stdout
    assert plan.count("HIT") == 5
    plan = millrace("plan", "microvlm", "-p", str(profile), "--set", "retry.rounds=1", root=captions).stdout
    assert "config retry.rounds 0 -> 1" in plan
    assert plan.count("HIT") == 2


def test_the_report_shows_samples_and_statuses(captions, tmp_path):
    page = tmp_path / "report.html"
    assert millrace("report", "microvlm", "--output", str(page), root=captions).returncode == 0
    html = page.read_text()
    assert html.count("data:image/png") >= 4
    assert "private_address" in html


def test_metadata_mode_fetches_nothing(profile, tmp_path):
    text = run("microvlm", tmp_path, profile, "--set", "select.mode=metadata")
    assert "2 stages" in text
    assert not AssetStore(tmp_path).assets("image_text_shards")


def test_questions_have_true_hashes_and_share_images(profile, tmp_path):
    run("trm_vlm", tmp_path, profile, "--set", "source.layout=pixmo_qa", "--set", "source.images=30")
    shards = only(tmp_path, "image_text_shards").folder
    rows = [row for path in shards.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    stored = [row for row in rows if row["status"] == "ok"]
    assert len(stored) > 2 * len({row["key"] for row in stored}), "several questions per image"
    assert all(row["question"] and row["answer"] and not row["templated"] for row in rows)


def test_lists_that_are_not_there_are_one_sentence(tmp_path):
    here = ("-p", "test", "--engine", "inline")
    result = millrace("run", "microvlm", *here, "--set", "source.paths=[nowhere.tsv]", root=tmp_path)
    assert result.returncode == 2
    assert "source.paths: 'nowhere.tsv' matches no file" in result.stderr
    assert "Traceback" not in result.stderr
