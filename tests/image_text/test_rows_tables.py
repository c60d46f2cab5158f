"""Parquet lists in the shapes of PixMo, and existing WebDataset tars."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.image_text import Columns, ParquetLists, ShardFolder
from tests.image_text.lists import dropped, parquet, read, rows, write_tar
from tests.image_text.sites import noisy

LONG = "In the foreground a dog sits on a red chair.\n\nBehind it, " + "a long wall of bricks, " * 60
POINTS = [{"x": 12.5, "y": 40.0}, {"x": 80.25, "y": 3.0}]
SHA = "0a" * 32

SHAPES: dict[str, tuple[Columns, dict[str, list[Any]], dict[str, str]]] = {
    "cap": (
        Columns(url="image_url", caption="caption", keep=("transcripts",)),
        {"caption": [LONG], "transcripts": [["a dog", "one dog, sitting"]]},
        {"caption": LONG.strip(), "extra": '{"transcripts": ["a dog", "one dog, sitting"]}'},
    ),
    "ask-model-anything": (
        Columns(sha256="image_sha256", question="question", answer="answer"),
        {"image_sha256": [SHA.upper()], "question": ["What is it?"], "answer": ["A dog.\nOn a chair."]},
        {"sha256": SHA, "question": "What is it?", "answer": "A dog.\nOn a chair."},
    ),
    "cap-qa": (
        Columns(question="question", answer="answer"),
        {"question": ["[USER] Is it a dog? [ASSISTANT]"], "answer": ["[ASSISTANT]Yes."], "messages": [["x"]]},
        {"question": "Is it a dog?", "answer": "Yes."},
    ),
    "points": (
        Columns(sha256="image_sha256", caption="label", keep=("points", "count", "collection_method")),
        {"image_sha256": [SHA], "label": ["dog"], "points": [POINTS], "count": [2], "collection_method": ["pointing"]},
        {
            "sha256": SHA,
            "caption": "dog",
            "extra": json.dumps(
                {"collection_method": "pointing", "count": 2, "points": POINTS}, sort_keys=True, ensure_ascii=False
            ),
        },
    ),
    "count": (
        Columns(sha256="image_sha256", question="label", answer="count", keep=("points",)),
        {"image_sha256": [SHA], "label": ["dogs"], "count": [0], "points": [None]},
        {"sha256": SHA, "question": "dogs", "answer": "0", "extra": '{"points": null}'},
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_pixmo_is_read_as_it_is(tmp_path, shape):
    columns, table, wanted = SHAPES[shape]
    asset = read(tmp_path, parquet(tmp_path / "a.parquet", columns, {"image_url": ["https://a.org/1.jpg"], **table}))
    [found] = rows(asset)
    names = ("sha256", "caption", "question", "answer", "extra")
    assert {name: found[name] for name in names} == {name: wanted.get(name, "") for name in names}
    assert (found["url"], found["place"], found["templated"]) == ("https://a.org/1.jpg", "", False)


def test_every_bad_row_of_a_table_has_its_reason(tmp_path):
    table = {
        "url": [
            "http://a/0",
            None,
            "a.org/2.jpg",
            "http://a/3",
            "http://a/4",
            "http://a/5",
            "http://a/6",
            "http://a/7",
        ],
        "q": ["q", "q", "q", None, "q", "q", "q", "[USER]"],
        "a": ["a", "a", "a", "a", "[ASSISTANT] ", "a", "a", "a"],
        "sha": [SHA, SHA, SHA, SHA, SHA, SHA[:-1], SHA[:-1] + "g", SHA],
    }
    columns = Columns(url="url", question="q", answer="a", sha256="sha")
    asset = read(tmp_path, parquet(tmp_path / "a.parquet", columns, table))
    assert dropped(asset) == {
        1: "bad_url", 2: "bad_url", 3: "no_text", 4: "no_text", 5: "bad_sha256", 6: "bad_sha256", 7: "no_text",
    }  # fmt: skip


def test_kept_numbers_that_json_does_not_know_drop_the_row(tmp_path):
    table = {"url": ["http://a/0", "http://a/1"], "text": ["x", "y"], "x": [1.5, float("nan")]}
    asset = read(tmp_path, parquet(tmp_path / "a.parquet", Columns(url="url", caption="text", keep=("x",)), table))
    assert [row["extra"] for row in rows(asset)] == ['{"x": 1.5}']
    assert dropped(asset) == {1: "bad_extra"}


def test_tables_of_many_batches_and_files_are_read_in_order(tmp_path):
    for n in range(2):
        urls = [f"http://a.org/{n}/{k}" for k in range(5000)]
        pq.write_table(pa.table({"u": urls, "t": urls}), tmp_path / f"{n}.parquet", row_group_size=1700)
    asset = read(tmp_path, ParquetLists(paths=(str(tmp_path),), columns=Columns(url="u", caption="t")), 4000)
    assert [row["url"] for row in rows(asset)] == [f"http://a.org/{n}/{k}" for n in range(2) for k in range(5000)]
    assert sorted(path.name for path in (asset.folder / "lists").iterdir()) == [f"0000{n}.parquet" for n in range(3)]


def test_wrong_columns_and_damaged_tables_are_one_sentence(tmp_path):
    source = parquet(tmp_path / "a.parquet", Columns(caption="caption"), {"url": ["http://a/1"], "text": [["x"]]})
    with pytest.raises(ValueError, match=r"a\.parquet has no column image_url, caption; it has url, text: correct"):
        read(tmp_path, source)
    nested = source.model_copy(update={"columns": Columns(url="url", caption="text")})
    with pytest.raises(ValueError, match=r"a\.parquet: column text holds list<.*>, not text"):
        read(tmp_path, nested)
    whole = (tmp_path / "a.parquet").read_bytes()
    for damaged in (whole[:-7], whole[:4] + b"\xff" * 60 + whole[64:]):
        (tmp_path / "a.parquet").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.parquet is no readable parquet file \([^\n]*\); fetch it again"):
            read(tmp_path, ParquetLists(paths=source.paths, columns=Columns(url="url", caption="url")))


MEMBERS = {
    "a.jpg": noisy(1), "a.txt": b"first \n", "a.json": b'{"url": "http://a/1", "sha256": "00", "caption": "other"}',
    "b.json": b'{"caption": "second", "text": "2nd"}', "b.png": noisy(2),
    "c.txt": b"no image",
    "d.jpg": noisy(3),
    "deep.er/e.webp": noisy(4), "deep.er/e.txt": b"in a folder\nof two lines",
    "f.jpeg": noisy(5), "f.json": b"[1]", "g.jpg": noisy(6), "g.txt": b"\xff",
}  # fmt: skip


def images_in(path: Path, asset: Any) -> list[bytes]:
    """Return what lies where the rows say that their images are."""
    data, places = path.read_bytes(), [row["place"].partition("@")[2].split("+") for row in rows(asset)]
    return [data[int(offset) : int(offset) + int(size)] for offset, size in places]


def test_existing_webdataset_tars_are_read_in_place(tmp_path):
    path = tmp_path / "x.tar"
    write_tar(path, MEMBERS)
    asset = read(tmp_path, ShardFolder(paths=(str(tmp_path),)))
    assert [(row["url"], row["sha256"], row["caption"]) for row in rows(asset)] == [
        ("http://a/1", "", "first"),
        ("", "", "second"),
        ("", "", "in a folder\nof two lines"),
    ]
    assert images_in(path, asset) == [noisy(1), noisy(2), noisy(4)]
    assert dropped(asset) == {2: "no_image", 3: "no_text", 5: "bad_text", 6: "bad_text"}
    named = read(tmp_path, ShardFolder(paths=(str(path),), caption_field="text"))
    assert [row["caption"] for row in rows(named)] == ["first", "2nd", "in a folder\nof two lines"]


def test_a_tar_that_was_cut_anywhere_is_one_sentence(tmp_path):
    path = tmp_path / "x.tar"
    write_tar(path, {"a.jpg": noisy(1), "a.txt": b"first", "b.jpg": noisy(2), "b.txt": b"second"})
    data = path.read_bytes()
    inside, header, border = 1400, data.index(b"b.jpg") + 100, data.index(b"b.jpg")
    for damaged in (data[:inside], data[:header], data[:border], data[:border] + b"\1" * 512 + data[border + 512 :]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x\.tar is no whole tar \(.*\); fetch or write it again"):
            read(tmp_path, ShardFolder(paths=(str(path),)))
