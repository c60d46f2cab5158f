"""Readers of tab-separated lists: URL and caption in either order, or file name and caption. Quotes are characters."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tasks.image_text.row import URL, Moved, Row, Rows, drop
from tasks.image_text.sources import IMAGE_SUFFIXES, ListFile

VOTERS = 5000
MAJORITY = 0.9
"""Share of the telling rows that must agree on the order of the columns."""
LINES_PER_MOVE = 20_000
URL_BYTES = tuple(scheme.encode() for scheme in URL)


def lines(path: Path, moved: Moved | None = None) -> Iterator[bytes]:
    """Yield the lines of a text file, of a gzipped one as well, without their ends and a byte order mark."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream: Iterable[bytes] = gzip.GzipFile(fileobj=file) if packed else file
        try:
            for number, line in enumerate(stream):
                if moved and number % LINES_PER_MOVE == 0:
                    moved(file.tell())
                yield line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n") if number == 0 else line.rstrip(b"\r\n")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path.name} is no whole gzip file ({error}); fetch it again") from None


def read_tsv(path: Path, order: str, moved: Moved) -> Rows:
    """Read a list of URL and caption (`url_first`), or of caption and URL; white space in captions becomes a space."""
    url_first = order == "url_first"
    for line in lines(path, moved):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            yield drop("not_utf8", line.decode(errors="replace"))
            continue
        if url_first:
            url, tab, caption = text.partition("\t")
        else:
            caption, tab, url = text.rpartition("\t")
        url, caption = url.strip(), " ".join(caption.split())
        if not tab:
            yield drop("no_tab", text)
        elif not url.startswith(URL) and not url.lower().startswith(URL):
            yield drop("bad_url", text)
        elif not caption:
            yield drop("no_text", text)
        else:
            yield Row(url, "", "", caption)


def vote(path: Path) -> str:
    """Return `url_first` or `caption_first` by a vote of the first rows; `ValueError` where they do not agree."""
    number = first = second = 0
    for number, line in enumerate(lines(path), 1):
        if number > VOTERS:
            break
        head, tab, _ = line.partition(b"\t")
        tail = line.rpartition(b"\t")[2]
        front, back = (part.strip().lower().startswith(URL_BYTES) for part in (head, tail))
        first += bool(tab) and front and not back
        second += bool(tab) and back and not front
    if number and max(first, second) < max(1, MAJORITY * (first + second)):
        raise ValueError(
            f"{path.name}: {first} of its first rows begin with a URL and {second} end with one, so the order of the "
            "columns is not clear; set source.order to url_first or caption_first, or take the file out"
        )
    return "url_first" if first >= second else "caption_first"


def read_captions(path: Path, images: Mapping[str, ListFile], moved: Moved) -> Rows:
    """Read a list of file name and caption about the images of a folder; a first line of column names is none."""
    for number, line in enumerate(lines(path, moved)):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            yield drop("not_utf8", line.decode(errors="replace"))
            continue
        name, tab, caption = text.partition("\t")
        caption = " ".join(caption.split())
        image = images.get(name.strip())
        if not tab:
            yield drop("no_tab", text)
        elif image is None and number == 0 and not name.strip().lower().endswith(IMAGE_SUFFIXES):
            yield drop("header", text)
        elif image is None:
            yield drop("no_such_file", text)
        elif not caption:
            yield drop("no_text", text)
        else:
            yield Row("", f"raw:{image.sha256}", image.sha256, caption)
