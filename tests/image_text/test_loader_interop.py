"""Plain `webdataset` and Hugging Face `datasets` read the same shards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.image_text.loader_shards import ShardFolders, write_shards


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> ShardFolders:
    return write_shards(tmp_path_factory.mktemp("interop"))


def test_webdataset_reads_the_same(written: ShardFolders) -> None:
    import webdataset

    tars = [str(path) for path in sorted(written.shards.glob("*.tar"))]
    found = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert [sample["__key__"] for sample in found] == [image["key"] for image in written.images]
    for sample, image in zip(found, written.images, strict=True):
        assert sample["jpg"] == image["jpeg"]
        assert sample["txt"].decode() == image["txt"]
        assert json.loads(sample["json"])["rows"] == image["rows"]


def test_hugging_face_datasets_read_the_same(
    written: ShardFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    tars = [str(path) for path in sorted(written.shards.glob("*.tar"))]
    stream = datasets.load_dataset(
        "webdataset", data_files=tars, split="train", streaming=True, cache_dir=str(tmp_path)
    )
    found = list(stream.cast_column("jpg", datasets.Image(decode=False)))
    assert [sample["__key__"] for sample in found] == [image["key"] for image in written.images]
    for sample, image in zip(found, written.images, strict=True):
        assert sample["jpg"]["bytes"] == image["jpeg"]
        assert sample["txt"] == image["txt"]
        assert [row["caption"] for row in sample["json"]["rows"]] == [row["caption"] for row in image["rows"]]
        assert [row["answer"] for row in sample["json"]["rows"]] == [row["answer"] for row in image["rows"]]
