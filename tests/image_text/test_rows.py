"""Rows by image: gathered from all lists, numbered by first appearance, the same bytes for the same input."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.image_text import Columns, Questions, Selection, TsvLists
from storage.shard_set import LIST_SCHEMA
from tasks.image_text import gathering, intake, row_keys
from tasks.progress import Silent
from tests.image_text.lists import dropped, facts, numbered, parquet, read, rows, tsv
from tests.image_text.sites import files_of

QA = Columns(url="image_url", sha256="image_sha256", question="question", answer="answer")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), min_size=1, max_size=60), most=st.integers(1, 9))
def test_rows_far_apart_are_gathered_whatever_fits_into_memory(tmp_path_factory, monkeypatch, lines, most):
    monkeypatch.setattr(intake, "BATCH_ROWS", 7)
    monkeypatch.setattr(gathering, "GROUP_ROWS", 4)
    monkeypatch.setattr(row_keys, "SLICE", 5)
    folder = tmp_path_factory.mktemp("far")
    source = tsv(folder / "a.tsv", *(f"http://a.org/{url}\tcaption {text}" for url, text in lines))
    asset = read(folder, source, images_per_shard=2, select=Selection(mode="images", max_images=most))
    images = {url: n for n, url in enumerate(dict.fromkeys(url for url, _ in lines))}
    first = {line: number for number, line in reversed(list(enumerate(lines)))}
    wanted = sorted((images[url], n, f"caption {text}") for (url, text), n in first.items() if images[url] < most)
    assert [(row["image"], row["row"], row["caption"]) for row in rows(asset)] == wanted
    assert dropped(asset) == {n: "duplicate_row" for n, line in enumerate(lines) if first[line] != n}
    for path in (asset.folder / "lists").iterdir():
        assert {n // 2 for n in pq.read_table(path)["image"].to_pylist()} == {int(path.stem)}
    known = facts(asset)
    assert known["input_rows"] == len(lines)
    assert known["rows"] + sum(known["dropped"].values()) + known.get("rows_not_selected", 0) == len(lines)


def test_lists_have_the_agreed_columns_and_no_nulls(tmp_path):
    path = read(tmp_path, tsv(tmp_path / "a.tsv", *numbered(3))).folder / "lists/00000.parquet"
    table = pq.read_table(path)
    assert table.schema == LIST_SCHEMA
    assert sum(column.null_count for column in table.columns) == 0


def test_rows_of_one_image_share_its_sha256_and_repetitions_and_contradictions_are_dropped(tmp_path):
    table = {
        "image_url": [f"http://a/{n}" for n in (1, 2, 1, 1, 2, 3, 1, 1)],
        "image_sha256": [None, "bb" * 32, "aa" * 32, "AA" * 32, "cc" * 32, "zz", "bb" * 32, ""],
        "question": ["how many?", "what?", "which colour?", "how many?", "why?", "who?", "where?", "where?"],
        "answer": ["two", "a dog", "red", "two", "because", "me", "here", "here"],
    }
    asset = read(tmp_path, parquet(tmp_path / "qa.parquet", QA, table))
    found = [(r["image"], r["row"], r["question"], r["answer"], r["sha256"][:2]) for r in rows(asset)]
    assert found == [
        (0, 0, "how many?", "two", "aa"),
        (0, 2, "which colour?", "red", "aa"),
        (0, 7, "where?", "here", "aa"),
        (1, 1, "what?", "a dog", "bb"),
    ]
    assert dropped(asset) == {3: "duplicate_row", 4: "sha256_conflict", 5: "bad_sha256", 6: "sha256_conflict"}


def test_dropped_rows_name_their_list_and_begin_with_their_text(tmp_path):
    tsv(tmp_path / "lists/a.tsv", *numbered(2), "x" * 500)
    tsv(tmp_path / "lists/b.tsv", *numbered(1), *numbered(2, begin=5), *numbered(1, begin=5))
    asset = read(tmp_path, TsvLists(paths=(str(tmp_path / "lists"),)))
    assert pq.read_table(asset.folder / "dropped.parquet").to_pylist() == [
        {"row": 2, "file": "a.tsv", "reason": "no_tab", "text": "x" * 200},
        {"row": 3, "file": "b.tsv", "reason": "duplicate_row", "text": "http://a.org/0.jpg caption 0  "},
        {"row": 6, "file": "b.tsv", "reason": "duplicate_row", "text": "http://a.org/5.jpg caption 5  "},
    ]
    assert facts(asset)["lists"] == [
        {"file": "a.tsv", "rows": 3, "order": "url_first"},
        {"file": "b.tsv", "rows": 4, "order": "url_first"},
    ]


def test_the_same_lists_give_the_same_bytes_wherever_they_lie(tmp_path):
    lines = ["no tab", *numbered(30), *numbered(5)]
    one = read(tmp_path / "one", tsv(tmp_path / "here/a.tsv", *lines), images_per_shard=7)
    two = read(tmp_path / "two", tsv(tmp_path / "there/a.tsv", *lines), images_per_shard=7)
    assert one.key == two.key
    assert files_of(one) == files_of(two)
    assert b"here" not in (one.folder / "manifest.json").read_bytes().partition(b'"inputs"')[0]


def test_lists_that_change_places_are_another_input(tmp_path):
    for root, (first, second) in {"one": ("a", "b"), "two": ("b", "a")}.items():
        tsv(tmp_path / root / f"{first}.tsv", *numbered(2))
        tsv(tmp_path / root / f"{second}.tsv", *numbered(2, begin=2))
    one, two = (read(tmp_path, TsvLists(paths=(str(tmp_path / root),))) for root in ("one", "two"))
    assert [row["caption"] for row in rows(one)] == [f"caption {n}" for n in (0, 1, 2, 3)]
    assert [row["caption"] for row in rows(two)] == [f"caption {n}" for n in (2, 3, 0, 1)]


def test_longer_lists_and_more_images_keep_the_bytes_of_full_shards(tmp_path):
    lines = numbered(25)
    shorter = files_of(read(tmp_path, tsv(tmp_path / "a.tsv", *lines[:17]), images_per_shard=5))
    source = tsv(tmp_path / "a.tsv", *lines)
    longer = files_of(read(tmp_path, source, images_per_shard=5))
    full = [f"lists/{n:05d}.parquet" for n in range(3)]
    assert {name: longer[name] for name in full} == {name: shorter[name] for name in full}
    limited = read(tmp_path, source, images_per_shard=5, select=Selection(mode="images", max_images=12))
    assert {name: files_of(limited)[name] for name in full[:2]} == {name: longer[name] for name in full[:2]}
    assert [row["image"] for row in rows(limited)] == list(range(12))
    assert limited.manifest.counts["rows_not_selected"] == 13


def test_mode_metadata_writes_what_full_writes(tmp_path):
    source = tsv(tmp_path / "a.tsv", *numbered(8))
    full = read(tmp_path, source)
    assert files_of(read(tmp_path, source, select=Selection(mode="metadata"))) == files_of(full)


def test_mode_test_takes_the_first_rows_and_opens_no_further_list(tmp_path):
    tsv(tmp_path / "lists/a.tsv", "broken", *numbered(6))
    tsv(tmp_path / "lists/b.tsv", *numbered(6, begin=6))
    tsv(tmp_path / "lists/c.tsv", "neither order")
    source = TsvLists(paths=(str(tmp_path / "lists"),))
    asset = read(tmp_path, source, select=Selection(mode="test", test_rows=10))
    assert [row["row"] for row in rows(asset)] == list(range(1, 10))
    assert dropped(asset) == {0: "no_tab"}
    assert [entry["rows"] for entry in facts(asset)["lists"]] == [7, 3]


def test_questions_from_captions_are_marked_and_stay_when_lists_grow(tmp_path):
    questions = Questions(from_captions=True)
    few = rows(read(tmp_path, tsv(tmp_path / "a.tsv", *numbered(20)), questions=questions))
    many = rows(read(tmp_path, tsv(tmp_path / "a.tsv", *numbered(20, begin=20), *numbered(20)), questions=questions))
    assert {row["caption"]: row["question"] for row in few}.items() <= {
        row["caption"]: row["question"] for row in many
    }.items()
    assert all(row["templated"] and row["answer"] == row["caption"] for row in many)
    assert {row["question"] for row in many} == set(questions.templates)


def test_real_questions_are_never_replaced_by_templates(tmp_path):
    columns = Columns(url="url", caption="caption", question="q", answer="a")
    table = {
        "url": ["http://a/1", "http://a/1", "http://a/2"],
        "caption": ["a dog", None, "a cat"],
        "q": ["which animal?", "how many?", None],
        "a": ["a dog", "one", None],
    }
    asset = read(tmp_path, parquet(tmp_path / "a.parquet", columns, table), questions=Questions(from_captions=True))
    assert [(row["question"], row["templated"]) for row in rows(asset)][:2] == [
        ("which animal?", False),
        ("how many?", False),
    ]
    assert rows(asset)[2]["templated"]
    known = facts(asset)
    assert (known["with_question"], known["templated"], known["with_caption"]) == (3, 1, 2)


def test_captions_are_counted_by_length(tmp_path):
    lines = [f"http://a.org/{n}\t{'ü' * n}" for n in (1, 3, 4, 7, 8)]
    assert facts(read(tmp_path, tsv(tmp_path / "a.tsv", *lines)))["caption_lengths"] == {
        "2": 1, "4": 1, "8": 2, "16": 1,
    }  # fmt: skip


def test_lists_without_a_usable_row_end_the_run(tmp_path):
    with pytest.raises(ValueError, match=r"none of 2 rows can be used \(bad_url 1, no_tab 1\)"):
        read(tmp_path, tsv(tmp_path / "a.tsv", "x\ty", "z", order="url_first"))
    with pytest.raises(ValueError, match="none of 0 rows can be used"):
        read(tmp_path, tsv(tmp_path / "b.tsv"))


class Watching(Silent):
    """Notes how far the bar is."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def progress(self, stage: str, done: int, total: int, words: str = "") -> None:
        """Note."""
        if stage == "image_text_rows":
            self.seen.append((done, total))


def test_a_bar_shows_bytes_until_all_lists_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.image_text.text_lists.LINES_PER_MOVE", 5)
    tsv(tmp_path / "lists/a.tsv", *numbered(50))
    tsv(tmp_path / "lists/b.tsv", *numbered(50, begin=50))
    watching = Watching()
    read(tmp_path, TsvLists(paths=(str(tmp_path / "lists"),)), reporter=watching)
    total = sum(path.stat().st_size for path in Path(tmp_path / "lists").iterdir())
    assert watching.seen == sorted(watching.seen)
    assert len(watching.seen) > 10
    assert watching.seen[-1] == (total, total)
    assert all(done < total for done, total in watching.seen[:-1])


def test_extra_columns_make_rows_differ(tmp_path):
    columns = Columns(url="url", caption="label", keep=("points",))
    table = {"url": ["http://a/1"] * 3, "label": ["dog"] * 3, "points": [[{"x": 1.0}], [{"x": 2.0}], [{"x": 1.0}]]}
    asset = read(tmp_path, parquet(tmp_path / "a.parquet", columns, table))
    assert [json.loads(row["extra"])["points"] for row in rows(asset)] == [[{"x": 1.0}], [{"x": 2.0}]]
    assert dropped(asset) == {2: "duplicate_row"}
