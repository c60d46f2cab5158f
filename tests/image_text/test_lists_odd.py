"""Lists as people have them: captions that are no text, further columns, other line ends and encodings."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter, ValidationError

from configs.image_text import Columns, ParquetLists, Source, TsvLists
from tasks.image_text.readers import read_lists
from tasks.image_text.row import Row
from tasks.image_text.sources import ListFile, source_files
from tasks.image_text.tables import read_parquet
from tasks.image_text.text_lists import lines
from tests.image_text.lists import dropped, parquet, read, rows
from tests.image_text.test_rows_text import image_folder

CAPTION = Columns(url="url", caption="caption")


def shape(text: str, outcome: str, kind: str = "parquet") -> pytest.MarkDecorator:
    return pytest.mark.input_shape(format=kind, shape=text, outcome=outcome)


def table(path, columns, **values):
    """Write a table with addresses, and return how its rows are read."""
    count = len(next(iter(values.values())))
    urls = pa.array([f"http://a.org/{n}" for n in range(count)])
    pq.write_table(pa.table({"url": urls, **values}), path)
    return [row._asdict() if isinstance(row, Row) else row for row in read_parquet(path, columns, lambda done: None)]


def reasons(found):
    return [row[0] if isinstance(row, tuple) else "" for row in found]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        pytest.param(pa.array([b"a dog", "ein Käfer".encode(), None], pa.binary()), ["a dog", "ein Käfer", "no_text"],
                     marks=shape("captions as bytes of UTF-8", "read"), id="bytes"),
        pytest.param(pa.array([b"\xff\xfe"], pa.large_binary()), ["not_utf8"],
                     marks=shape("captions as bytes that are no UTF-8", "skipped"), id="other bytes"),
        pytest.param(pa.array([float("nan"), None, 3.0, 0.5]), ["no_text", "no_text", "3", "0.5"],
                     marks=shape("NaN and null as captions", "skipped"), id="NaN"),
        pytest.param(pa.array([None, None], pa.null()), ["no_text", "no_text"], id="null"),
        pytest.param(pa.array([float("inf"), -float("inf"), 1e300]), ["no_text", "no_text", "1e+300"],
                     marks=shape("infinities as captions", "skipped"), id="infinities"),
        pytest.param(pa.array(["\u200b", "\u2060 ", "\u200ba dog\u200b"]), ["no_text", "no_text", "a dog"],
                     marks=shape("captions of characters without width", "skipped"), id="no width"),
        pytest.param(pa.array(["a dog", "a cat", "a dog"]).dictionary_encode(), ["a dog", "a cat", "a dog"],
                     marks=shape("categories as captions", "read"), id="categories"),
        pytest.param(pa.array(["\ufeffa dog", "\ufeff", "a dog\0\0", "a\0dog"]),
                     ["a dog", "no_text", "a dog", "a\0dog"],
                     marks=shape("byte order mark or padding with NUL in a caption", "read"), id="marks"),
    ],
)  # fmt: skip
def test_captions_of_every_type_are_text_or_have_their_reason(tmp_path, values, wanted):
    found = table(tmp_path / "a.parquet", CAPTION, caption=values)
    assert [row["caption"] if isinstance(row, dict) else row[0] for row in found] == wanted


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        pytest.param(pa.array([{"en": "a dog"}]), "struct<en: string>", marks=shape("objects as captions", "refused")),
        pytest.param(pa.array([True]), "bool", marks=shape("truth values as captions", "refused")),
        pytest.param(pa.array([1], pa.duration("s")), r"duration\[s\]"),
        pytest.param(pa.array([["a dog", "a cat"]]), r"list<\w+: string>, not text; set source.columns.several",
                     marks=shape("lists of captions, unless the configuration says so", "refused")),
        pytest.param(pa.array([[[1]]]), "list<.*>, not text; name another"),
    ],
)  # fmt: skip
def test_captions_that_are_no_text_are_refused_by_column_and_type(tmp_path, values, kind):
    with pytest.raises(ValueError, match=rf"a\.parquet: column caption holds {kind}"):
        table(tmp_path / "a.parquet", CAPTION, caption=values)


@shape("lists of captions, where the configuration says so", "read")
def test_lists_of_captions_are_several_rows_where_the_configuration_says_so(tmp_path):
    columns = Columns(url="url", caption="caption", several_captions=True)
    lists = {"url": ["http://a/0", "http://a/1", "http://a/2"], "caption": [["a dog", "a cat"], [], None]}
    asset = read(tmp_path, parquet(tmp_path / "a.parquet", columns, lists))
    assert [(row["image"], row["row"], row["caption"]) for row in rows(asset)] == [(0, 0, "a dog"), (0, 1, "a cat")]
    assert dropped(asset) == {2: "no_text", 3: "no_text"}
    with pytest.raises(ValueError, match="column caption holds string, not lists"):
        table(tmp_path / "b.parquet", columns, caption=pa.array(["a dog"]))


@shape("NUL inside a caption", "skipped")
def test_a_nul_inside_a_text_drops_the_row(tmp_path):
    lists = {"url": ["http://a/0", "http://a/1"], "caption": ["a\0 \0d\0o\0g", "a dog"]}
    asset = read(tmp_path, parquet(tmp_path / "a.parquet", CAPTION, lists))
    assert dropped(asset) == {0: "nul_in_text"}


def test_kept_columns_are_json_or_refused(tmp_path):
    columns = Columns(url="url", caption="caption", keep=("x",))
    texts = pa.array(["one", "two"])
    found = table(tmp_path / "a.parquet", columns, caption=texts, x=pa.array([b"caf\xc3\xa9", b"\xff\0"]))
    assert found[0]["extra"] == '{"x": "café"}'
    assert found[1][0] == "bad_extra"
    nested = table(tmp_path / "a.parquet", columns, caption=texts, x=pa.array([[b"a"], [b"b", None]]))
    assert [row["extra"] for row in nested] == ['{"x": ["a"]}', '{"x": ["b", null]}']
    with pytest.raises(ValueError, match=r"column x holds duration\[s\], which JSON has no word for"):
        table(tmp_path / "a.parquet", columns, caption=texts, x=pa.array([1, 2], pa.duration("s")))


@shape("a column name that stands twice", "refused")
def test_a_column_that_stands_twice_is_refused_if_it_is_used(tmp_path):
    path = tmp_path / "a.parquet"
    names = ["url", "caption", "caption", "other", "other"]
    pq.write_table(pa.Table.from_arrays([pa.array([text]) for text in ("http://a/0", "x", "y", "z", "z")], names), path)
    with pytest.raises(ValueError, match=r"a\.parquet has 2 columns caption, and nobody knows which one is meant"):
        list(read_parquet(path, CAPTION, lambda done: None))
    values = [pa.array([text]) for text in ("http://a/0", "x", "z", "z")]
    pq.write_table(pa.Table.from_arrays(values, names[:2] + names[3:]), path)
    assert next(read_parquet(path, CAPTION, lambda done: None)).caption == "x"


def test_a_point_in_a_column_name_is_a_point(tmp_path):
    columns = Columns(url="url", caption="text.en")
    found = table(tmp_path / "a.parquet", columns, **{"text.en": pa.array(["a"]), "text": pa.array([{"en": "b"}])})
    assert found[0]["caption"] == "a"


@shape("SHA-256 as 32 bytes", "read")
def test_digests_are_read_as_digits_and_as_bytes(tmp_path):
    wanted = hashlib.sha256(b"x")
    columns = Columns(url="url", caption="caption", sha256="sha256")
    for values in (
        pa.array([wanted.digest(), b"short"]),
        pa.array([wanted.digest(), bytes(32)], pa.binary(32)),
        pa.array([wanted.hexdigest().encode(), b""]),
        pa.array([wanted.hexdigest().upper(), ""]),
    ):
        found = table(tmp_path / "a.parquet", columns, caption=pa.array(["a", "b"]), sha256=values)
        assert found[0]["sha256"] == wanted.hexdigest()
    assert reasons(table(tmp_path / "a.parquet", columns, caption=pa.array(["a"]), sha256=pa.array([b"short"]))) == [
        "bad_sha256"
    ]


def test_lists_of_tables_still_read_through_the_public_door(tmp_path):
    source = parquet(tmp_path / "a.parquet", CAPTION, {"url": ["http://a/0"], "caption": [b"a dog"]})
    assert isinstance(source, ParquetLists)
    assert [row["caption"] for row in rows(read(tmp_path, source))] == ["a dog"]


# --- tab-separated lists


def listed(path, data: bytes, **settings):
    """Write a list and return its address and caption, or why a row was dropped."""
    path.write_bytes(data)
    reading = {"kind": "tsv", **TsvLists(paths=("x",), **settings).model_dump()}
    [opened] = read_lists([ListFile(path, path.name, "")], reading, lambda done: None)
    return [(row.url, row.caption) if isinstance(row, Row) else row.reason for row in opened.rows]


TWO = [("http://a.org/0", "ein Käfer"), ("http://a.org/1", "a dog")]
TEXT = "".join(f"{url}\t{caption}\n" for url, caption in TWO)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(TEXT.replace("\n", "\r").encode(), id="CR",
                     marks=shape("lines that end in CR", "read", "TSV list")),
        pytest.param(gzip.compress(TEXT.replace("\n", "\r").encode()), id="CR in gzip"),
        pytest.param(TEXT.encode("utf-16"), id="UTF-16", marks=shape("UTF-16 with its mark", "read", "TSV list")),
        pytest.param(b"\xfe\xff" + TEXT.encode("utf-16-be"), id="UTF-16 BE"),
        pytest.param(TEXT.replace("\n", "\r\n").encode("utf-16"), id="UTF-16 CRLF"),
        pytest.param(TEXT.replace("\n", "\r").encode("utf-16"), id="UTF-16 CR"),
        pytest.param(TEXT.encode("utf-32"), id="UTF-32"),
        pytest.param(TEXT.replace("http", "\ufeffhttp").replace("ein", "\ufeffein").encode(), id="marks everywhere",
                     marks=shape("byte order marks anywhere", "read", "TSV list")),
    ],
)  # fmt: skip
def test_line_ends_and_encodings_change_nothing(tmp_path, data):
    assert listed(tmp_path / "a.tsv", data) == TWO


def test_a_lone_cr_is_white_space_where_lines_end_otherwise(tmp_path):
    assert listed(tmp_path / "a.tsv", b"http://a/0\ta\rdog\nhttp://a/1\tb\n") == [
        ("http://a/0", "a dog"), ("http://a/1", "b"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(TEXT.encode("utf-16-le"), r"looks like UTF-16 without its mark; write it as UTF-8",
                     marks=shape("UTF-16 without its mark", "refused", "TSV list")),
        pytest.param(TEXT.encode("utf-16")[:-1], r"is UTF-16 by its mark, but not all of it"),
        pytest.param(b"http://a/0,a dog\nhttp://a/1,a cat\n", r"its columns are separated by commas, not.*a dog",
                     marks=shape("columns separated by commas", "refused", "TSV list")),
        pytest.param(b"url;caption\nhttp://a/0;a dog\n", r"its columns are separated by semicolons",
                     marks=shape("columns separated by semicolons", "refused", "TSV list")),
        pytest.param(b"http://a/0\ta dog\ten\t0.31\n" * 3, r"3 of its first 3 rows have more than two columns, the "
                     r"first one 4: 'http://a/0\\ta dog\\ten\\t0\.31'; say what they hold in source\.columns",
                     marks=shape("more than two columns without names", "refused", "TSV list")),
    ],
)  # fmt: skip
def test_lists_that_would_be_misread_are_one_sentence(tmp_path, data, words):
    with pytest.raises(ValueError, match=rf"a\.tsv:? {words}"):
        listed(tmp_path / "a.tsv", data)


@shape("more than two columns, named", "read", "TSV list")
def test_further_columns_may_be_named(tmp_path):
    data = b"en\thttp://a/0\t0.31\ta dog\nen\thttp://a/1\ta cat\nurl\ttext\t0\tx"
    columns = ("ignore", "url", "ignore", "caption")
    assert listed(tmp_path / "a.tsv", data, columns=columns) == [("http://a/0", "a dog"), "other_columns", "bad_url"]
    with pytest.raises(ValidationError, match="name one column url, one caption"):
        TsvLists(paths=("x",), columns=("url", "ignore"))


@shape("caption of more than 131,072 characters", "read", "TSV list")
def test_captions_have_any_length_and_lines_have_a_bound(tmp_path, monkeypatch):
    assert listed(tmp_path / "a.tsv", b"http://a/0\t" + b"x" * 200_000) == [("http://a/0", "x" * 200_000)]
    monkeypatch.setattr("tasks.image_text.text_lists.LONGEST", 2**20)
    with pytest.raises(ValueError, match="a line of more than 1 MB"):
        listed(tmp_path / "a.tsv", b"http://a/0\t" + b"x" * 2**20)


def test_an_unreadable_list_is_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "a.tsv"
    path.write_bytes(TEXT.encode())

    def denied(*arguments, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.open", denied)
    with pytest.raises(ValueError, match=r"a\.tsv cannot be read \(Permission denied\)"):
        list(lines(path))


@shape("files in an image folder that are no images, broken links", "skipped", "image folder")
def test_what_lies_in_an_image_folder_and_is_not_used_is_counted_and_named(tmp_path):
    source = image_folder(tmp_path / "images", "0.jpg\tzero\n")
    (tmp_path / "images/deep/scan.tif").write_bytes(b"II")
    (tmp_path / "images/lost.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "images/.hidden").write_bytes(b"")
    found = source_files(source)
    assert {path.name: why for path, why in found.passed} == {
        "lost.jpg": "is a link to nothing",
        "scan.tif": "is no image by its name",
    }
    assert [path.name for path in found.hidden] == [".hidden"]


OTHERS = {"tsv": "a.tsv", "parquet": "a.parquet", "webdataset": "a.tar"}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=shape(f"other files beside {k} lists", "skipped", "folder")) for k in OTHERS]
)
def test_what_lies_beside_lists_is_counted_and_named(tmp_path, kind):
    folder = tmp_path / "lists"
    folder.mkdir()
    for name in (OTHERS[kind], "README.txt", "photo.jpg", "list.xyz"):
        (folder / name).write_text("About\nthese https://files\n")
    (folder / f"b{Path(OTHERS[kind]).suffix}").symlink_to(tmp_path / "nowhere")
    more = {"columns": CAPTION} if kind == "parquet" else {}
    found = source_files(TypeAdapter(Source).validate_python({"kind": kind, "paths": [str(folder)], **more}))
    assert [path.name for path in found] == [OTHERS[kind]]
    reasons = {path.name: why for path, why in found.passed}
    assert set(reasons.values()) == {f"is no {Path(OTHERS[kind]).suffix} file", "is a link to nothing"} | (
        {"has no URLs"} if kind == "tsv" else set()
    )
    assert len(reasons) == 4


@pytest.mark.parametrize("text", ["http://a/b.jpg\ta dog\n", "a dog\tHTTPS://a/b.jpg\n", "a dog,https://a/b.jpg\n"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_a_text_file_with_urls_is_a_list(tmp_path, text, encoding):
    (tmp_path / "list.txt").write_bytes(text.encode(encoding))
    assert len(source_files(TsvLists(kind="tsv", paths=(str(tmp_path),)))) == 1


@shape("commas in a list of captions", "refused", "captions CSV")
def test_a_list_of_captions_with_commas_is_named(tmp_path):
    source = image_folder(tmp_path / "images", "image,caption\n0.jpg,zero\n")
    with pytest.raises(ValueError, match=r"captions\.tsv: its columns are separated by commas, not by tabs"):
        read(tmp_path, source)
