"""Tars of WebDataset: our samples are those of the library, key by key and in order, or the tar is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
from pathlib import Path
from typing import Any

import pytest
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.image_text import ShardFolder
from tasks.image_text.row import Dropped, Row
from tasks.image_text.sources import ListFile
from tasks.image_text.tars import is_foreign, read_tar
from tests.image_text.lists import dropped, read, rows

MEMBER_REASONS = {"macos_file", "meta_member", "no_suffix", "no_file", "sparse_member"}
"""Reasons of members that are part of no sample."""


def shape(text: str, outcome: str) -> pytest.MarkDecorator:
    return pytest.mark.input_shape(format="tar", shape=text, outcome=outcome)


Members = list[tuple[str, bytes | str, bytes]]
"""Name, content (or target of a link), and kind."""


def tar_bytes(members: Members, kind: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for name, content, type_ in members:
            info = tarfile.TarInfo(name)
            info.type = type_
            if isinstance(content, str):
                info.linkname, content = content, b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def files(**contents: bytes) -> Members:
    return [(name.replace("_", ".", 1), content, tarfile.REGTYPE) for name, content in contents.items()]


def found_in(path: Path, data: bytes, several: bool = False) -> list[Row | Dropped]:
    path.write_bytes(data)
    return list(read_tar(ListFile(path, path.name, "aa"), "caption", several, lambda done: None))


def theirs(path: Path) -> list[dict[str, Any]]:
    """Return webdataset's samples without what macOS adds."""
    pipeline = webdataset.WebDataset(
        [str(path)], shardshuffle=False, empty_check=False, select_files=lambda name: not is_foreign(name)
    )
    return list(pipeline)


def image_of(path: Path, row: Row) -> bytes:
    offset, size = map(int, row.place.partition("@")[2].split("+"))
    return path.read_bytes()[offset : offset + size]


NAMES = st.sampled_from([
    f"{folder}{stem}{suffix}"
    for folder in ("", "x/", "./", "a.b/")
    for stem in ("a", "b", "_a", "._a", "")
    for suffix in (".jpg", ".JPG", ".txt", ".json", ".seg.png", "")
] + ["__MACOSX/._a.jpg", "__meta__", "__meta__/a.jpg", ".DS_Store", "x/.DS_Store", "ü.jpg", "\n.jpg"])  # fmt: skip
KINDS = st.sampled_from([tarfile.REGTYPE] * 12 + [tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    members=st.lists(st.tuples(NAMES.filter(bool), KINDS), max_size=8, unique_by=lambda member: member[0]),
    ordered=st.booleans(), again=st.booleans(), kind=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)  # fmt: skip
def test_samples_are_those_of_webdataset_or_the_tar_is_refused(tmp_path_factory, members, ordered, again, kind):
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    chosen = (sorted(members) if ordered else members) + (members[:2] if again else [])
    whole: Members = []
    for number, (name, type_) in enumerate(chosen):
        link = type_ in (tarfile.LNKTYPE, tarfile.SYMTYPE)
        content = b"{}" if name.endswith(".json") else b"content %d" % number
        whole.append((name, "a.jpg" if link else content if type_ == tarfile.REGTYPE else b"", type_))
    data = tar_bytes(whole, kind)
    path.write_bytes(data)
    try:
        samples = theirs(path)
    except ValueError:
        samples = None
    ours, refusal = _ours(path, data)
    if refusal:
        assert samples is None or "do not stand together" in refusal
        return
    assert samples is not None, "what stops webdataset stops us"
    judged = [row for row in ours if _is_sample(row)]
    assert len(judged) == len(samples)
    for row, sample in zip(judged, samples, strict=True):
        if isinstance(row, Row):
            assert image_of(path, row) == sample["jpg"]
            assert row.caption == sample["txt"].decode()
        else:
            assert row.text == sample["__key__"]
            assert row.reason in ("link", "no_text" if "jpg" in sample else "no_image")
    regular = sum(type_ == tarfile.REGTYPE for _, _, type_ in whole)
    in_samples = sum(len([suffix for suffix in sample if not suffix.startswith("__")]) for sample in samples)
    alone = sum(isinstance(row, Dropped) and row.reason in MEMBER_REASONS - {"no_file"} for row in ours)
    others = sum(type_ in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE) for _, _, type_ in whole)
    assert regular <= in_samples + alone <= regular + others, "every member is accounted for"


def _ours(path: Path, data: bytes) -> tuple[list[Row | Dropped], str]:
    try:
        return found_in(path, data), ""
    except ValueError as error:
        return [], str(error)


def _is_sample(row: Row | Dropped) -> bool:
    """Whether a row stands for a sample, not for a member; links that are members are named with their suffix."""
    if isinstance(row, Row):
        return True
    return row.reason not in MEMBER_REASONS and not (row.reason == "link" and "." in row.text.rpartition("/")[2])


PAIR = files(a_jpg=b"A", a_txt=b"a dog")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        pytest.param([*PAIR, *PAIR], "sample a has two members jpg", id="twice",
                     marks=shape("a sample twice in a row", "refused")),
        pytest.param(files(a_jpg=b"A", b_jpg=b"B", a_txt=b"a", b_txt=b"b"),
                     r"do not stand together.*sort the members by name",
                     id="unsorted", marks=shape("members of a sample apart", "refused")),
    ],
)  # fmt: skip
def test_tars_in_which_webdataset_would_mix_samples_are_refused(tmp_path, members, words):
    with pytest.raises(ValueError, match=rf"x\.tar: .*{words}"):
        found_in(tmp_path / "x.tar", tar_bytes(members))


@shape("the same key again, whole", "read")
def test_a_key_that_comes_again_whole_is_another_sample(tmp_path):
    found = found_in(
        tmp_path / "x.tar", tar_bytes([*PAIR, *files(b_jpg=b"B", b_txt=b"b"), *files(a_jpg=b"C", a_txt=b"c")])
    )
    assert [row.caption for row in found] == ["a dog", "b", "c"]
    assert [image_of(tmp_path / "x.tar", row) for row in found] == [b"A", b"B", b"C"]


@shape("tars joined with cat", "refused")
def test_what_follows_the_end_of_a_tar_is_refused(tmp_path):
    one, two = tar_bytes(PAIR), tar_bytes(files(b_jpg=b"B", b_txt=b"b"))
    with pytest.raises(
        ValueError, match=r"x\.tar is no whole tar \(something follows its end at byte 10240, .*--concat"
    ):
        found_in(tmp_path / "x.tar", one + two)
    assert len(found_in(tmp_path / "x.tar", one + bytes(2**21))) == 1


@shape("links", "skipped")
def test_links_are_named(tmp_path):
    members: Members = [
        *PAIR,
        ("b.jpg", "a.jpg", tarfile.LNKTYPE), ("b.txt", b"b", tarfile.REGTYPE),
        ("c.jpg", b"C", tarfile.REGTYPE), ("c.txt", "a.txt", tarfile.SYMTYPE),
        ("d.jpg", "a.jpg", tarfile.SYMTYPE), ("d.txt", "a.txt", tarfile.SYMTYPE),
        ("e.jpg", b"E", tarfile.REGTYPE), ("e.npy", "a.npy", tarfile.SYMTYPE), ("e.txt", b"e", tarfile.REGTYPE),
    ]  # fmt: skip
    found = found_in(tmp_path / "x.tar", tar_bytes(members))
    assert [row.caption if isinstance(row, Row) else tuple(row) for row in found] == [
        "a dog", ("link", "b"), ("link", "c"), "e", ("link", "e.npy"), ("link", "d.jpg"), ("link", "d.txt"),
    ]  # fmt: skip


@shape("files that macOS adds", "skipped")
def test_files_of_macos_are_skipped_and_counted(tmp_path):
    members = [(f"x/{name}", content, tarfile.REGTYPE) for name, content in [
        ("._a.jpg", b"?"), ("a.jpg", b"A"), ("._a.txt", b"?"), ("a.txt", b"a dog"), ("__MACOSX/._a.jpg", b"?"),
        (".DS_Store", b"?"), ("README", b"?"),
    ]]  # fmt: skip
    (tmp_path / "x.tar").write_bytes(tar_bytes(members))
    asset = read(tmp_path, ShardFolder(paths=(str(tmp_path / "x.tar"),)))
    assert [row["caption"] for row in rows(asset)] == ["a dog"]
    assert sorted(dropped(asset).values()) == ["macos_file"] * 4 + ["no_suffix"]


@pytest.mark.parametrize(
    ("name", "pack", "kind"),
    [
        pytest.param("x.tar", gzip.compress, "gzip", marks=shape("gzip called .tar", "refused")),
        pytest.param("x.tar.gz", gzip.compress, "gzip", marks=shape(".tar.gz", "refused")),
        pytest.param("x.tar.bz2", bz2.compress, "bzip2"),
        pytest.param("x.tar.xz", lzma.compress, "xz"),
    ],
)
def test_compressed_tars_are_named(tmp_path, name, pack, kind):
    (tmp_path / name).write_bytes(pack(tar_bytes(PAIR)))
    with pytest.raises(ValueError, match=rf"{name} is compressed with {kind}; images are read in place, so unpack it"):
        read(tmp_path / "out", ShardFolder(paths=(str(tmp_path),)))


@pytest.mark.parametrize(
    ("caption", "wanted"),
    [
        pytest.param(["a dog", "a cat"], ["bad_text"], marks=shape("a list of captions in JSON", "skipped")),
        pytest.param({"en": "a dog"}, ["bad_text"], marks=shape("an object as caption in JSON", "skipped")),
        pytest.param(True, ["bad_text"], id="true"),
        pytest.param(float("nan"), ["no_text"], id="nan"),
        pytest.param(None, ["no_text"], id="null"),
        pytest.param("\ufeffa dog\0", ["a dog"], id="marks"),
        pytest.param(3, ["3"], id="number"),
    ],
)
def test_captions_in_json_are_text_or_have_their_reason(tmp_path, caption, wanted):
    members = files(a_jpg=b"A", a_json=json.dumps({"caption": caption}).encode())
    found = found_in(tmp_path / "x.tar", tar_bytes(members))
    assert [row.caption if isinstance(row, Row) else row.reason for row in found] == wanted


def test_lists_of_captions_in_json_are_several_rows_where_the_configuration_says_so(tmp_path):
    members = files(a_jpg=b"A", a_json=b'{"caption": ["a dog", "", "a cat"]}')
    found = found_in(tmp_path / "x.tar", tar_bytes(members), several=True)
    assert [row.caption if isinstance(row, Row) else row.reason for row in found] == ["a dog", "no_text", "a cat"]


def test_deep_and_wild_json_drops_its_sample(tmp_path):
    found = found_in(tmp_path / "x.tar", tar_bytes(files(a_jpg=b"A", a_json=b"[" * 200_000)))
    assert found == [("bad_text", "a")]
