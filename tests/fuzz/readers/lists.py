"""Lists of images with texts: TSV, an image folder's captions, parquet, and tars."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import webdataset.tariterators  # noqa: F401  imports torch, which writes a file for a moment

from configs.image_text import Columns, Crawling, Fetching, ImageFolder, ParquetLists, ShardFolder, TsvLists
from tasks.image_text.fetch import Fetcher, FetchError
from tasks.image_text.readers import read_lists
from tasks.image_text.row import Row
from tasks.image_text.sources import ListFile, reading
from tests.fuzz.case import Files, Reader
from tests.fuzz.mutate import NUMBERS, WORDS, json_bytes, mutate_bytes, mutate_json, mutate_text, packed, some

ROWS = 3
URL = "https://example.org/{}.jpg"


def _rows(given: Path, setting: Mapping[str, Any]) -> object:
    files = [ListFile(path, path.name, f"{n:064d}") for n, path in enumerate(sorted(given.iterdir()))]
    found = []
    for opened in read_lists(files, setting, lambda done: None):
        found += list(opened.rows)
    for row in found:  # they go to tables and JSON in UTF-8
        json.dumps(row).encode()
        "".join(str(value) for value in row).encode()
        assert not isinstance(row, Row) or row.caption or row.question
    return found


# -- text ---------------------------------------------------------------------------------------------------------

SETTINGS = (
    reading(TsvLists(paths=("x",))),
    reading(TsvLists(paths=("x",), order="caption_first")),
    reading(TsvLists(paths=("x",), columns=("caption", "ignore", "url"))),
)


def _make_tsv(random: Random) -> Files:
    lines = [f"a dog on grass {n}\t{URL.format(n)}" for n in range(ROWS)]
    if random.random() < 0.5:
        lines = ["\t".join(reversed(line.split("\t"))) for line in lines]
    data = mutate_text(random, "\n".join(lines), "\t")
    if random.random() < 0.1:
        data = gzip.compress(data, 1)
        data = mutate_bytes(random, data) if random.random() < 0.7 else data
    return {f"{random.randrange(len(SETTINGS))}.tsv": data}


def _read_tsv(given: Path, made: Path) -> object:
    (path,) = given.iterdir()
    return _rows(given, SETTINGS[int(path.stem)])


def _make_folder(random: Random) -> Files:
    lines = [f"{n}.jpg\ta dog on grass" for n in range(ROWS)]
    return {"list.tsv": mutate_text(random, "\n".join(lines), "\t"), **{f"{n}.jpg": b"" for n in range(ROWS)}}


def _read_folder(given: Path, made: Path) -> object:
    return _rows(given, reading(ImageFolder(path="x", captions="y")))


# -- parquet ------------------------------------------------------------------------------------------------------

COLUMNS = (
    Columns(url="image_url", caption="caption"),
    Columns(url="image_url", caption="caption", several_captions=True),
    Columns(url="image_url", sha256="image_sha256", question="question", answer="answer", keep=("points", "count")),
)


@cache
def _kinds() -> tuple[pa.DataType, ...]:
    plain = (
        pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary(32), pa.bool_(),
        pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.decimal128(5, 2), pa.date32(),
        pa.timestamp("ns", "UTC"), pa.timestamp("us"), pa.time64("ns"), pa.duration("s"), pa.null(),
    )  # fmt: skip
    nested = (
        pa.list_(pa.string()), pa.list_(pa.float64()), pa.large_list(pa.string()), pa.list_(pa.string(), 2),
        pa.struct([("x", pa.float64()), ("y", pa.binary())]), pa.map_(pa.string(), pa.int32()),
        pa.dictionary(pa.int32(), pa.string()), pa.list_(pa.struct([("x", pa.float64())])),
        pa.list_(pa.list_(pa.string())),
    )  # fmt: skip
    return (*plain, *nested)


_VALUES: tuple[Any, ...] = (
    None, "", "a dog", *WORDS, *NUMBERS, "a" * 64, b"\xff\0", b"a dog", b"\0" * 32, 0, 1, -1, 2**40, 0.5, float("nan"),
    float("inf"), True, [], ["a dog", "a cat"], ["a", None], [0.5, float("nan")], {"x": 1.0, "y": b"\xff"},
    {"x": float("nan")}, [("a", 1)], [("a", 1), ("a", 2)], [["a"], None],
)  # fmt: skip


def _column(random: Random, name: str) -> pa.Array:
    kinds = (pa.string(),) if random.random() < 0.6 else _kinds()
    kind = random.choice(kinds)
    usual = URL.format(1) if name == "image_url" else "a dog"
    values: list[Any] = []
    for _ in range(ROWS):
        value = usual if random.random() < 0.5 else random.choice(_VALUES)
        try:
            values.append(pa.array([value], kind)[0].as_py())
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            values.append(None)
    return pa.array(values, kind)


@cache
def _parquet() -> bytes:
    table = pa.table({"image_url": [URL.format(n) for n in range(ROWS)], "caption": ["a dog"] * ROWS})
    return _written(table)


def _written(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def _make_parquet(random: Random) -> Files:
    name = f"{random.randrange(len(COLUMNS))}.parquet"
    if random.random() < 0.4:
        data, footer = _parquet(), len(_parquet()) - 8 - int.from_bytes(_parquet()[-8:-4], "little")
        if random.random() < 0.5:
            return {name: mutate_bytes(random, data)}
        changed = mutate_bytes(random, data[footer:-8])
        return {name: data[:footer] + changed + len(changed).to_bytes(4, "little") + b"PAR1"}
    names = ["image_url", "caption", "image_sha256", "question", "answer", "points", "count"]
    if random.random() < 0.2:
        names.append(random.choice((*names, "a.b", *WORDS)))
    table = pa.Table.from_arrays([_column(random, n) for n in names], names)
    compression = random.choice(("snappy", "zstd", "none", "gzip", "brotli", "lz4"))
    return {name: _written(table.slice(0, random.choice((0, 1, ROWS))), compression=compression)}


def _read_parquet(given: Path, made: Path) -> object:
    (path,) = given.iterdir()
    columns = COLUMNS[int(path.stem)]
    return _rows(given, reading(ParquetLists(paths=("x",), columns=columns)))


# -- tars ---------------------------------------------------------------------------------------------------------

TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
         tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.XGLTYPE,
         tarfile.GNUTYPE_LONGNAME, b"Z", b"\xff")  # fmt: skip
NAMES = ("a", "a.jpg", "b.jpg", ".jpg", "a.", "../../x.jpg", "/etc/x.jpg", "__MACOSX/a.jpg", "._a.jpg", "d/a.jpg",
         "__meta__.json", "é.jpg", "a.seg.png", "a.JPG", "x" * 120 + ".jpg", "a\n.jpg", "\ud800.jpg")  # fmt: skip


def _members(random: Random) -> list[tuple[tarfile.TarInfo, bytes]]:
    found = []
    for key in "ab":
        facts = {"url": URL.format(key), "caption": "a cat", "key": key}
        said = mutate_json(random, facts) if random.random() < 0.4 else facts
        text = random.choice((b"a dog", b"", *(word.encode("utf-8", "surrogatepass") for word in WORDS)))
        parts = {"jpg": b"\xff\xd8\xff" + key.encode(), "json": json_bytes(random, said)}
        parts |= {"txt": text} if random.random() < 0.4 else {}
        for suffix, content in parts.items():
            member = tarfile.TarInfo(f"{key}.{suffix}")
            member.size = len(content)
            found.append((member, content))
    return found


def _change_members(random: Random, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    at = random.randrange(len(members)) if members else 0
    if not members:
        return
    member, content = members[at]
    match random.randrange(8):
        case 0:
            member.type = random.choice(TYPES)
        case 1:
            member.name = random.choice(NAMES)
        case 2:
            member.size = random.choice((0, 1, len(content) + 1, 2**33, len(content) + 512))
        case 3:
            member.type, member.linkname = random.choice((tarfile.LNKTYPE, tarfile.SYMTYPE)), random.choice(NAMES)
        case 4:
            keys = ("path", "size", "linkpath", "GNU.sparse.major", "GNU.sparse.map", "mtime", "hdrcharset", "comment")
            member.pax_headers = {random.choice(keys): random.choice((*NUMBERS, *WORDS))}
        case 5:
            del members[at]
        case 6:
            members.insert(random.randrange(len(members) + 1), (member, content))
        case _:
            members[at] = member, mutate_bytes(random, content)


def _tar(random: Random) -> bytes:
    members = _members(random)
    for _ in some(random, 4):
        _change_members(random, members)
    data = b""
    form = random.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
    for member, content in members:
        data += _header(random, member.tobuf(form, "utf-8", "surrogateescape"))
        data += content + bytes(-len(content) % 512)
    return data + bytes(random.choice((1024, 1024, 1024, 512, 0, 10240)))


def _header(random: Random, header: bytes) -> bytes:
    """Return a member's header, seldom with other bytes, whose checksum holds."""
    if random.random() > 0.1 or len(header) != 512:
        return header
    changed = bytearray(header)
    start = random.choice((0, 100, 124, 136, 156, 157, 257, 345, 386, 482, 483))
    changed[start : start + 8] = random.choice(
        (b"\x80" + packed(random, ">Q")[:7], b"99999999", b"        ", b"\xff" * 8)
    )
    changed[148:156] = b"        "
    changed[148:156] = b"%06o\0 " % sum(changed)
    return bytes(changed)


def _make_tar(random: Random) -> Files:
    data = _tar(random)
    chance = random.random()
    if chance < 0.2:
        data = mutate_bytes(random, data)
    elif chance < 0.25:
        data += _tar(random)
    elif chance < 0.28:
        data = gzip.compress(data, 1)
    return {f"{random.randrange(2)}.tar": data}


def _read_tar(given: Path, made: Path) -> object:
    (path,) = given.iterdir()
    return _rows(given, reading(ShardFolder(paths=("x",), several_captions=path.stem == "1")))


# -- answers of servers -------------------------------------------------------------------------------------------

BODY = b"\xff\xd8\xff" * 300


def _make_body(random: Random) -> Files:
    """Return a body that came packed, in one of the ways of HTTP."""
    window = random.choice((zlib.MAX_WBITS, -zlib.MAX_WBITS, 16 + zlib.MAX_WBITS))
    pack = zlib.compressobj(1, wbits=window)
    data = pack.compress(BODY if random.random() < 0.95 else bytes(20_000_000)) + pack.flush()
    return {"body": mutate_bytes(random, data, [BODY])}


def _read_body(given: Path, made: Path) -> object:
    fetcher = Fetcher(Fetching(max_megabytes=1), Crawling(), {})
    try:
        found = fetcher._unpacked((given / "body").read_bytes())
    except FetchError as error:  # a status, as it stands in a shard's table
        return error.status
    assert len(found) <= 1e6
    return found


CODE = ("tasks.image_text.readers",)
READERS = (
    Reader("tsv", CODE, _make_tsv, _read_tsv),
    Reader("folder_captions", CODE, _make_folder, _read_folder),
    Reader("parquet", CODE, _make_parquet, _read_parquet),
    Reader("tar", CODE, _make_tar, _read_tar),
    Reader("body", ("tasks.image_text.fetch",), _make_body, _read_body),
)
