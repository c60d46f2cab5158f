"""Readers of tab-separated lists: URL and caption in either order, or file name and caption. Quotes are characters."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

from storage.files import readable
from tasks.image_text.row import TEXT_SHOWN, URL, Dropped, Moved, Row, Rows, clean, drop
from tasks.image_text.sources import IMAGE_SUFFIXES, ListFile

VOTERS = 5000
MAJORITY = 0.9
"""Share of the telling rows that must agree on the order of the columns."""
LINES_PER_MOVE = 20_000
URL_BYTES = tuple(scheme.encode() for scheme in URL)
LOOKED_AT = 2**16
"""Bytes from the beginning of a list that tell how it is written."""
LONGEST = 2**24
"""Bytes of a line; what has more is no list."""
MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""Encodings by the mark that a file begins with, longer marks first."""
ORDERS: dict[tuple[str, ...], str] = {("url", "caption"): "url_first", ("caption", "url"): "caption_first"}
COLUMNS = {order: columns for columns, order in ORDERS.items()}
SEPARATORS = {",": "commas", ";": "semicolons", "|": "bars"}


def lines(path: Path, moved: Moved | None = None) -> Iterator[bytes]:
    """Yield the lines of a text file as UTF-8 without their ends and byte order marks, of a gzipped one as well.

    UTF-16 and UTF-32 are read by their mark. In a file of lone CRs these end lines, elsewhere they are white space.
    """
    try:
        with readable(path), path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            stream: BinaryIO = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file
            for number, line in enumerate(_split(path.name, stream)):
                if moved and number % LINES_PER_MOVE == 0:
                    moved(file.tell())
                yield line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path.name} is no whole gzip file ({error}); fetch it again") from None


def _split(name: str, stream: BinaryIO) -> Iterator[bytes]:
    """Yield lines with their ends, in UTF-8 or whatever a file without a mark is written in."""
    head = stream.read(LOOKED_AT)
    stream.seek(0)
    encoding = next((encoding for mark, encoding in MARKS.items() if head.startswith(mark)), "")
    if not encoding and b"\0" in head and max(head[0::2].count(0), head[1::2].count(0)) > len(head) // 4:
        raise ValueError(f"{name} looks like UTF-16 without its mark; write it as UTF-8 (iconv -f utf-16le -t utf-8)")
    text = head.decode(encoding, "ignore").encode() if encoding else head
    lone = text.count(b"\r") - text.count(b"\r\n")
    if not encoding and lone <= text.count(b"\n"):
        while line := stream.readline(LONGEST):
            yield _bounded(name, line)
        return
    newline = None if lone > text.count(b"\n") else "\n"
    reader = io.TextIOWrapper(stream, encoding or "latin-1", newline=newline)
    try:
        while string := reader.readline(LONGEST):
            yield _bounded(name, string.encode("utf-8" if encoding else "latin-1"))
    except UnicodeError as error:
        raise ValueError(
            f"{name} is {encoding.upper()} by its mark, but not all of it ({error}); fetch it again"
        ) from None
    finally:
        reader.detach()


def _bounded(name: str, line: bytes) -> bytes:
    if len(line) >= LONGEST:
        raise ValueError(f"{name} has a line of more than {LONGEST >> 20} MB; a list has a line for each row")
    return line


def read_tsv(path: Path, columns: tuple[str, ...], moved: Moved) -> Rows:
    """Read a list whose columns hold `url`, `caption` or what is ignored; white space in captions becomes a space."""
    for line in lines(path, moved):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            yield drop("not_utf8", line.decode(errors="replace"))
            continue
        parts = text.split("\t")
        if len(parts) != len(columns):
            yield drop("no_tab" if len(parts) == 1 else "other_columns", text)
            continue
        found = dict(zip(columns, parts, strict=True))
        yield _row(clean(found["url"]), _one_line(found["caption"]), text)


def _row(url: str, caption: str, text: str) -> Row | Dropped:
    if not url.startswith(URL) and not url.lower().startswith(URL):
        return drop("bad_url", text)
    return Row(url, "", "", caption) if caption else drop("no_text", text)


def _one_line(caption: str) -> str:
    return " ".join(clean(caption).split())


def columns_of(path: Path, order: str) -> tuple[str, ...]:
    """Return what the two columns of a list hold, in the order that is told, or that a vote of the first rows finds.

    `ValueError` where rows do not agree, or where most have further columns, which need names.
    """
    first_rows = list(islice(lines(path), VOTERS))
    wide = [line for line in first_rows if line.count(b"\t") > 1]
    if (len(wide) > 1 and len(wide) > (1 - MAJORITY) * len(first_rows)) or 0 < len(wide) == len(first_rows):
        shown, tabs = wide[0].decode(errors="replace")[:TEXT_SHOWN], wide[0].count(b"\t")
        raise ValueError(
            f"{path.name}: {len(wide)} of its first {len(first_rows)} rows have more than two columns, the first one "
            f"{tabs + 1}: {shown!r}; say what they hold in source.columns, e.g. [url, caption, ignore]"
        )
    return COLUMNS[vote(path) if order == "auto" else order]


def vote(path: Path) -> str:
    """Return `url_first` or `caption_first` by a vote of the first rows; `ValueError` where they do not agree."""
    first = second = 0
    rows = list(islice(lines(path), VOTERS))
    for line in rows:
        head, tab, _ = line.partition(b"\t")
        tail = line.rpartition(b"\t")[2]
        front, back = (part.strip().lower().startswith(URL_BYTES) for part in (head, tail))
        first += bool(tab) and front and not back
        second += bool(tab) and back and not front
    if rows and max(first, second) < max(1, MAJORITY * (first + second)):
        if not first + second:
            _refuse_separators(path)
        raise ValueError(
            f"{path.name}: {first} of its first rows begin with a URL and {second} end with one, so the order of the "
            "columns is not clear; set source.order to url_first or caption_first, or take the file out (its first "
            f"row: {rows[0].decode(errors='replace')[:TEXT_SHOWN]!r})"
        )
    return "url_first" if first >= second else "caption_first"


def _refuse_separators(path: Path) -> None:
    """Say so where the columns of a list without a tab are separated by something else."""
    rows = [line.decode(errors="replace") for line in islice(lines(path), VOTERS)]
    if any("\t" in row for row in rows):
        return
    for separator, name in SEPARATORS.items():
        if rows and sum(separator in row for row in rows) >= MAJORITY * len(rows):
            raise ValueError(
                f"{path.name}: its columns are separated by {name}, not by tabs; write it with tabs, or as parquet "
                f"(its first row: {rows[0][:TEXT_SHOWN]!r})"
            )


def read_captions(path: Path, images: Mapping[str, ListFile], moved: Moved) -> Rows:
    """Read a list of file name and caption about the images of a folder; a first line of column names is none."""
    _refuse_separators(path)
    for number, line in enumerate(lines(path, moved)):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            yield drop("not_utf8", line.decode(errors="replace"))
            continue
        name, tab, caption = text.partition("\t")
        caption = _one_line(caption)
        image = images.get(clean(name))
        if not tab:
            yield drop("no_tab", text)
        elif image is None and number == 0 and not name.strip().lower().endswith(IMAGE_SUFFIXES):
            yield drop("header", text)
        elif text.count("\t") > 1:
            yield drop("other_columns", text)
        elif image is None:
            yield drop("no_such_file", text)
        elif not caption:
            yield drop("no_text", text)
        else:
            yield Row("", f"raw:{image.sha256}", image.sha256, caption)
