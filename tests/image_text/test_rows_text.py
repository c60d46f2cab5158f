"""Tab-separated lists and image folders: nothing is misread, or lost without a reason."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from configs.image_text import ImageFolder, TsvLists
from tests.conftest import shared_data
from tests.image_text.lists import dropped, facts, numbered, read, rows, tsv
from tests.image_text.sites import noisy, sha256

BROKEN = [
    "no tab at all",
    b"http://a.org/1.jpg\tbroken \xff\xfe",
    "ftp://a.org/2.jpg\tnot fetched",
    "javascript:alert(1)\tnot fetched",
    "http://a.org/4.jpg\t  ",
    "http://a.org/5.jpg\t",
    "",
]
REASONS = ["no_tab", "not_utf8", "bad_url", "bad_url", "no_text", "no_text", "no_tab"]


def test_quotes_are_characters_and_rows_with_further_columns_are_dropped(tmp_path):
    source = tsv(
        tmp_path / "cc12m.tsv",
        'http://a.org/0.jpg\t"a caption that opens a quote',
        "HTTPS://a.org/1.jpg\ta second",
        'https://a.org/2.jpg\tthe quote" closes here',
        "http://a.org/3.jpg\tgrüße 你好",
        "http://a.org/4.jpg\ta dog\ten",
    )
    asset = read(tmp_path, source)
    assert [(row["row"], row["image"], row["url"], row["caption"]) for row in rows(asset)] == [
        (0, 0, "http://a.org/0.jpg", '"a caption that opens a quote'),
        (1, 1, "HTTPS://a.org/1.jpg", "a second"),
        (2, 2, "https://a.org/2.jpg", 'the quote" closes here'),
        (3, 3, "http://a.org/3.jpg", "grüße 你好"),
    ]
    assert dropped(asset) == {4: "other_columns"}


def test_every_bad_row_has_its_reason_and_good_rows_keep_their_places(tmp_path):
    asset = read(tmp_path, tsv(tmp_path / "a.tsv", *BROKEN, *numbered(70)))
    assert dropped(asset) == dict(enumerate(REASONS))
    assert [row["row"] for row in rows(asset)] == list(range(7, 77))
    assert facts(asset)["dropped"] == {"bad_url": 2, "no_tab": 2, "no_text": 2, "not_utf8": 1}


CAPTION = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\t\0\ufeff"), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(captions=st.lists(CAPTION), order=st.sampled_from(["url_first", "caption_first"]))
def test_any_caption_comes_through_whole(tmp_path_factory, captions, order):
    folder = tmp_path_factory.mktemp("any")
    wanted = ["a", *captions]
    pairs = [(f"http://a.org/{n}", caption) for n, caption in enumerate(wanted)]
    lines = ["\t".join(pair if order == "url_first" else pair[::-1]) for pair in pairs]
    asset = read(folder, tsv(folder / "list.tsv", *lines, order=order))
    assert {row["row"]: row["caption"] for row in rows(asset)} == {
        n: " ".join(c.split()) for n, c in enumerate(wanted) if c.strip()
    }


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.lists(st.binary(max_size=20).map(lambda b: b.translate(None, b"\r\0")), max_size=20))
@example(content=[b"\t\t"])
def test_whatever_bytes_a_list_holds_all_rows_are_accounted_for(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("bytes")
    data = b"http://a.org/0\ta\n" + b"\n".join(content)
    assume(sum(line.count(b"\t") > 1 for line in data.split(b"\n")) < 2)  # a list of more columns is refused
    (folder / "a.tsv").write_bytes(data)
    known = facts(read(folder, TsvLists(paths=(str(folder / "a.tsv"),), order="url_first")))
    assert known["input_rows"] == data.count(b"\n") + (not data.endswith(b"\n"))
    assert known["rows"] + sum(known["dropped"].values()) == known["input_rows"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_gzip_line_ends_and_byte_order_marks_change_nothing(tmp_path, end):
    plain = read(tmp_path / "plain", tsv(tmp_path / "plain/a.tsv", *numbered(5)))
    tsv(tmp_path / "odd/a.tsv", *numbered(5), end=end)
    packed = tmp_path / "odd/a.tsv.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + packed.with_suffix("").read_bytes()))
    odd = read(tmp_path / "odd", TsvLists(paths=(str(packed),)))
    name = "lists/00000.parquet"
    assert (odd.folder / name).read_bytes() == (plain.folder / name).read_bytes()


def test_a_cut_gzip_file_is_one_sentence(tmp_path):
    whole = gzip.compress("\n".join(numbered(2000)).encode())
    for path, data in {"cut.tsv.gz": whole[:-300], "odd.tsv.gz": whole[:500] + b"\0" * 300 + whole[800:]}.items():
        (tmp_path / path).write_bytes(data)
        with pytest.raises(ValueError, match=rf"{path} is no whole gzip file .*; fetch it again"):
            read(tmp_path, TsvLists(paths=(str(tmp_path / path),)))


def test_the_order_of_columns_is_found_in_real_lists(tmp_path):
    data = shared_data("image_text")
    first = read(tmp_path, TsvLists(paths=(str(data / "cc12m_style_excerpt_url_caption.tsv"),)))
    second = read(tmp_path, TsvLists(paths=(str(data / "cc3m_val_excerpt_caption_url.tsv"),)))
    assert len(rows(first)) == 400
    assert {(r["url"], r["caption"]) for r in rows(first)} == {(r["url"], r["caption"]) for r in rows(second)}
    assert all(row["url"].startswith("http") for row in rows(second))
    assert [facts(asset)["lists"][0]["order"] for asset in (first, second)] == ["url_first", "caption_first"]


def test_every_file_votes_for_itself_and_odd_first_lines_are_outvoted(tmp_path):
    odd = [f"http://looks.like/{n}.jpg of a url\tcaption first" for n in range(3)]
    tsv(tmp_path / "lists/a.tsv", *odd, *(f"cap {n}\thttp://a.org/{n}.jpg" for n in range(60)))
    tsv(tmp_path / "lists/b.tsv", *numbered(60, begin=60))
    asset = read(tmp_path, TsvLists(paths=(str(tmp_path / "lists"),)))
    assert [entry["order"] for entry in facts(asset)["lists"]] == ["caption_first", "url_first"]
    assert {row["url"] for row in rows(asset)} == {f"http://a.org/{n}.jpg" for n in range(120)}
    assert dropped(asset) == dict.fromkeys(range(3), "bad_url")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["http://a.org/0\tone", "two\thttp://a.org/1"], "1 of its first rows begin with a URL and 1 end with one"),
        (["<html>", "<body>\tNot found"], "0 of its first rows begin with a URL and 0 end with one"),
    ],
)
def test_an_unclear_vote_asks_for_the_order(tmp_path, lines, words):
    with pytest.raises(ValueError, match=rf"b\.tsv: {words}.* set source\.order"):
        read(tmp_path, tsv(tmp_path / "b.tsv", *lines))


def test_a_told_order_is_not_put_to_the_vote(tmp_path):
    source = tsv(tmp_path / "b.tsv", "http://a.org/0\tone", "two\thttp://a.org/1", order="caption_first")
    assert [row["caption"] for row in rows(read(tmp_path, source))] == ["two"]


def test_an_image_folder_ties_captions_to_real_images_by_name(tmp_path):
    data = shared_data("image_text")
    asset = read(tmp_path, ImageFolder(path=str(data / "images"), captions=str(data / "captions.tsv")))
    found = rows(asset)
    contents = {path.name: sha256(path.read_bytes()) for path in (data / "images").iterdir()}
    listed = [line.split("\t", 1) for line in (data / "captions.tsv").read_text().splitlines()]
    listed = [(name, caption) for name, caption in listed if name in contents]
    assert {(r["sha256"], r["caption"]) for r in found} == {(contents[n], " ".join(c.split())) for n, c in listed}
    assert len({r["image"] for r in found}) == len({name for name, _ in listed}) < len(found)
    assert all(row["place"] == f"raw:{row['sha256']}" and not row["url"] for row in found)
    assert facts(asset)["images_without_caption"] == len(set(contents.values())) - len({r["image"] for r in found})


def image_folder(folder: Path, captions: str | bytes) -> ImageFolder:
    """Write three images, one of them in a subfolder, and a list of captions."""
    for n, name in enumerate(["0.jpg", "1.jpg", "deep/2.jpg"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(noisy(n))
    (folder / "captions.tsv").write_bytes(captions.encode() if isinstance(captions, str) else captions)
    return ImageFolder(path=str(folder), captions=str(folder / "captions.tsv"))


def test_captions_without_image_and_images_without_caption_are_counted(tmp_path):
    lines = [
        b"filename\tcaption",
        b"0.jpg\tzero",
        b"deep/2.jpg\ttwo",
        b"9.jpg\tnine",
        b"1.jpg\t ",
        b"0.jpg\t\xff",
        b"x",
    ]
    asset = read(tmp_path, image_folder(tmp_path / "images", b"\r\n".join(lines)))
    assert [(row["sha256"], row["caption"]) for row in rows(asset)] == [
        (sha256(noisy(0)), "zero"),
        (sha256(noisy(2)), "two"),
    ]
    assert dropped(asset) == {0: "header", 3: "no_such_file", 4: "no_text", 5: "not_utf8", 6: "no_tab"}
    assert facts(asset)["images_without_caption"] == 1


def test_renamed_images_are_another_input_and_moved_folders_are_not(tmp_path):
    folder = tmp_path / "images"
    source = image_folder(folder, "0.jpg\tzero\n")
    asset = read(tmp_path, source)
    shutil.copytree(folder, tmp_path / "moved")
    moved = ImageFolder(path=str(tmp_path / "moved"), captions=str(tmp_path / "moved/captions.tsv"))
    assert read(tmp_path, moved).key == asset.key
    (folder / "0.jpg").rename(folder / "00.jpg")
    with pytest.raises(ValueError, match=r"none of 1 rows can be used \(no_such_file 1\)"):
        read(tmp_path, source)
    (folder / "1.jpg").rename(folder / "0.jpg")
    assert rows(read(tmp_path, source))[0]["sha256"] == sha256(noisy(1))


def test_missing_files_are_one_sentence(tmp_path):
    source = image_folder(tmp_path / "images", "0.jpg\tzero\n")
    (tmp_path / "empty").mkdir()
    cases = {
        r"source\.paths: .*nowhere.tsv' matches no file": TsvLists(paths=(str(tmp_path / "nowhere.tsv"),)),
        r"source\.paths: .*empty' matches no file": TsvLists(paths=(str(tmp_path / "empty"),)),
        r"source\.path: there is no folder .*nowhere": source.model_copy(update={"path": str(tmp_path / "nowhere")}),
        r"source\.path: .*empty holds no images": source.model_copy(update={"path": str(tmp_path / "empty")}),
        r"source\.captions: there is no list .*nowhere": source.model_copy(update={"captions": "nowhere"}),
    }
    for words, wrong in cases.items():
        with pytest.raises(ValueError, match=words):
            read(tmp_path, wrong)
