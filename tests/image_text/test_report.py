"""The report of a shard set: tables that add up, pictures of images that are really there."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from configs.image_text import Duplicates
from storage.assets import Asset, AssetStore
from tasks.image_text import survey
from tasks.image_text.figures_samples import LINE_WIDTH, LINES, text_lines
from tasks.image_text.report import image_text_report
from tasks.image_text.report_samples import Sample, choose_pairs, choose_samples
from tasks.image_text.shard_tables import ShardTables
from tasks.image_text.survey import HERE, host_of, take_survey
from tasks.progress import Silent
from tasks.session import Session
from tests.image_text.pictures import encoded, scenery
from tests.image_text.shard_fixtures import Listed, index_of, publish, write_shards

QUESTION = {"question": "How many?", "answer": "three of them"}


def images() -> list[Listed]:
    """Forty images: 0..29 stored, with one exact and two near copies, the rest failed."""
    made = []
    for i in range(40):
        picture = encoded(scenery(60 + i, 70, seed=i))
        texts = (
            [{"caption": f"costs $5 or ${i}, 日本語 and \n lines"}] if i % 2 else [QUESTION, {"caption": "more words"}]
        )
        made.append(Listed(i, jpeg=picture, texts=texts, size=(60 + i, 70), url=f"https://Host{i % 3}.org:8080/{i}"))
    for i in range(30, 40):
        made[i].status, made[i].detail = ("http_404", "gone") if i < 37 else ("too_small", "3 x 3 pixels")
    made[12].raw, made[12].phash = made[3].raw, made[3].phash
    made[13].phash, made[14].phash = made[4].phash ^ 1, made[4].phash
    return made


def write_rows(folder: Path, dropped: list[dict]) -> Path:
    folder.mkdir()
    columns = [("row", pa.int64()), ("file", pa.string()), ("reason", pa.string()), ("text", pa.string())]
    pq.write_table(pa.Table.from_pylist(dropped, schema=pa.schema(columns)), folder / "dropped.parquet")
    return folder


def report_of(store: AssetStore, rows: Path, shards: Path, index: Asset) -> Asset:
    with Session(store, Silent()).active():
        return image_text_report(rows=publish(store, rows), shards=publish(store, shards), index=index)


def table(report: Asset, name: str) -> list[list[str]]:
    with (report.folder / name).open(newline="") as file:
        return list(csv.reader(file))[1:]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"), images(), per_shard=16)


@pytest.fixture(scope="module")
def index(shards, tmp_path_factory) -> Asset:
    return index_of(AssetStore(tmp_path_factory.mktemp("index")), shards, validation_share=0.2, test_share=0.2)


@pytest.fixture(scope="module")
def report(shards, index, tmp_path_factory) -> Asset:
    dropped = [
        {"row": 7 + k, "file": "list.tsv", "reason": "no text", "text": "http://x\t" + "y" * 900} for k in (0, 1)
    ]
    dropped.append({"row": 3, "file": "other.tsv", "reason": "bad url", "text": "nonsense"})
    rows = write_rows(tmp_path_factory.mktemp("rows") / "rows", dropped)
    return report_of(AssetStore(tmp_path_factory.mktemp("store")), rows, shards, index)


def test_every_picture_is_there_and_is_one(report):
    names = {"samples.png", "statuses.png", "sizes.png", "texts.png", "splits.png", "duplicates.png"}
    assert {path.name for path in report.folder.glob("*.png")} == names
    for name in names:
        picture = Image.open(report.folder / name)
        assert np.asarray(picture.convert("L")).std() > 5
        assert picture.width / picture.info["dpi"][0] > 8, "inches"


def test_statuses_add_up(report):
    assert table(report, "statuses.csv") == [
        ["ok", "30", "75.00%", "host0.org", ""],
        ["http_404", "7", "17.50%", "host0.org", "gone"],
        ["too_small", "3", "7.50%", "host1.org", "3 x 3 pixels"],
    ]


def test_hosts_add_up(report):
    hosts = table(report, "hosts.csv")
    assert [row[0] for row in hosts] == ["host0.org", "host1.org", "host2.org"]
    assert [row[1:] for row in hosts] == [["14", "10", "71.43%"], ["13", "10", "76.92%"], ["13", "10", "76.92%"]]


def test_counts_add_up(report):
    counts = {words: int(count) for words, count in table(report, "counts.csv")}
    assert counts["listed images"] == 40
    left_out = sum(count for words, count in counts.items() if words.startswith("left out"))
    assert counts["stored images"] - left_out == counts["images in the index"] == 27
    assert sum(counts[f"images in {name}"] for name in ("train", "validation", "test")) == 27


def test_dropped_rows_are_shown_by_reason(report):
    first, second = table(report, "dropped.csv")
    assert first[:4] == ["no text", "2", "list.tsv", "7"]
    assert len(first[4]) == 120
    assert second == ["bad url", "1", "other.tsv", "3", "nonsense"]


def test_without_drops_and_duplicates_there_is_neither_table_nor_picture(store, tmp_path):
    folder = write_shards(tmp_path / "s", images()[:2])
    made = report_of(store, write_rows(tmp_path / "rows", []), folder, index_of(store, folder))
    assert not (made.folder / "dropped.csv").exists()
    assert not (made.folder / "duplicates.png").exists()
    assert (made.folder / "samples.png").exists()


def test_equal_assets_give_equal_reports(shards, index, tmp_path):
    rows = write_rows(tmp_path / "rows", [])
    prints = {report_of(AssetStore(tmp_path / name), rows, shards, index).fingerprint for name in ("one", "two")}
    assert len(prints) == 1


def test_samples_are_a_keyed_choice_of_different_stored_images(shards, index):
    listed = {image.jpeg: image for image in images()}
    samples = choose_samples(shards, index.folder, 20)
    chosen = [listed[sample.jpeg] for sample in samples]
    assert len({image.image for image in chosen}) == 20
    assert all(image.stored for image in chosen)
    for sample, image in zip(samples, chosen, strict=True):
        assert {k: sample.text[k] for k in ("caption", "question")} in [
            {k: row[k] for k in ("caption", "question")} for row in image.rows()
        ]
        assert sample.texts == len(image.texts)
    assert choose_samples(shards, index.folder, 20) == samples
    assert [image.image for image in chosen] != sorted(image.image for image in chosen)
    assert len(choose_samples(shards, index.folder, 100)) == 27, "as many as there are"


def test_pairs_show_every_kind_of_duplicate(shards, index):
    listed = images()
    pairs = choose_pairs(ShardTables(shards), index.folder, 6)
    assert {(p.reason, p.distance, p.stays, p.out) for p in pairs} == {
        ("dup_exact", 0, 3, 12), ("dup_near", 0, 4, 14), ("dup_near", 1, 4, 13),
    }  # fmt: skip
    assert all(p.jpegs == (listed[p.stays].jpeg, listed[p.out].jpeg) for p in pairs)
    assert len(choose_pairs(ShardTables(shards), index.folder, 2)) == 2


def test_pairs_find_images_that_a_retry_brought(store, tmp_path):
    listed = images()[:6]
    listed[5].status = "timeout"
    folder = write_shards(tmp_path / "s", listed)
    again = images()[5]
    again.phash = listed[1].phash ^ 2
    write_shards(folder, [again], attempt=1)
    index = index_of(store, folder, Duplicates(distance=1))
    (pair,) = choose_pairs(ShardTables(folder), index.folder, 6)
    assert (pair.stays, pair.out, pair.jpegs[1]) == (1, 5, again.jpeg)


def test_a_retried_image_counts_once_in_the_survey(tmp_path):
    folder = write_shards(tmp_path / "s", [Listed(0), Listed(1, status="timeout"), Listed(2, status="dns")])
    write_shards(folder, [Listed(1), Listed(2, status="http_410")], attempt=1)
    assert take_survey(ShardTables(folder)).statuses == {"ok": 2, "http_410": 1}


def test_of_many_images_a_share_is_measured(monkeypatch, shards):
    everything = take_survey(ShardTables(shards))
    assert len(everything.sizes["bytes"]) == 30
    assert sorted(everything.words["answer"].tolist()) == [3] * 15
    assert everything.sizes["original_width"].tolist() == [2 * (60 + i) for i in range(30)]
    monkeypatch.setattr(survey, "SAMPLE", 10)
    some = take_survey(ShardTables(shards))
    assert some.sizes["original_width"].tolist() == [2 * (60 + i) for i in range(0, 30, 4)]
    assert some.statuses == everything.statuses


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://A.org:81/x?y", "a.org"),
        ("http://user:pass@b.com", "b.com"),
        ("http://[::1]:80/x", "[::1]"),
        ("http://c.de?q=/a@b", "c.de"),
        ("", HERE),
    ],
)
def test_hosts_are_read_from_addresses(url, host):
    assert host_of(url) == host


def test_long_texts_are_cut_where_there_is_no_room():
    long = "word " * 200
    blank = {"caption": "", "question": "", "answer": "", "templated": False}
    for text in ({"caption": long}, {"question": long, "answer": long}, {"question": "Why?", "answer": "x" * 500}):
        lines = text_lines(Sample(b"", "train", blank | text, 1))
        assert len(lines) <= LINES
        assert all(len(line) <= LINE_WIDTH for line in lines)
