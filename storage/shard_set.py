"""Shard sets of image-text data: WebDataset tars, a parquet file beside each, and what their rows mean.

    00000.tar            per stored image `<key>.jpg`, `<key>.json`, `<key>.txt`; key = the image's number, nine digits
    00000.parquet        one row per input row, stored or not, with a status and the offsets of the members
    00000_stats.json     counts by status; written last, so a shard without it is not there
    retry1-00000.*       images that failed before, tried again; the newest shard that lists an image decides about it

Plain `webdataset` and Hugging Face `datasets` read the tars. Equal images and options give equal bytes.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import pyarrow as pa

BLOCK = 512
RECORD = 20 * BLOCK  # tars end at a multiple of this

OK = "ok"
STATUSES = (
    OK,
    "bad_url", "dns", "connect", "tls", "timeout",
    "http_403", "http_404", "http_410", "http_429", "http_4xx", "http_5xx",
    "redirect_blocked", "private_address", "robots_optout", "too_big", "short_body",
    "not_image", "truncated", "decode_error", "too_many_pixels", "too_small", "aspect", "hash_mismatch",
)  # fmt: skip
"""What can become of an image: fetched and stored, not fetched, or fetched and refused."""
REFUSED = STATUSES[STATUSES.index("not_image") :]
"""Statuses of images whose bytes arrived."""

_TEXT = [(name, pa.string()) for name in ("caption", "question", "answer")]

LIST_SCHEMA = pa.schema([
    ("image", pa.int64()), ("row", pa.int64()), ("url", pa.string()), ("place", pa.string()), ("sha256", pa.string()),
    *_TEXT, ("templated", pa.bool_()), ("extra", pa.string()),
])  # fmt: skip
"""What is to be fetched: one row per input row, sorted by image and row; absent texts are empty, nothing is null."""

SHARD_SCHEMA = pa.schema([
    ("key", pa.string()), ("image", pa.int64()), ("row", pa.int64()),
    ("status", pa.string()), ("http_status", pa.int16()), ("detail", pa.string()), ("url", pa.string()),
    *_TEXT, ("templated", pa.bool_()), ("extra", pa.string()),
    ("bytes", pa.int64()), ("original_width", pa.int32()), ("original_height", pa.int32()),
    ("width", pa.int32()), ("height", pa.int32()),
    ("sha256", pa.string()), ("stored_sha256", pa.string()), ("phash", pa.uint64()),
    *((f"{member}_{part}", pa.int64()) for member in ("jpg", "txt", "json") for part in ("offset", "size")),
])  # fmt: skip
"""What became of it: one row per row of the list, in its order; offsets are those of members' contents in the tar."""


class Member(NamedTuple):
    """Where a member's content lies in its tar."""

    offset: int
    size: int


def image_key(image: int) -> str:
    """Return the key of an image's members; `image_key(12) => '000000012'`."""
    return f"{image:09d}"


class TarWriter:
    """Writes a USTAR file whose bytes depend on names, contents and order alone, and knows where members lie.

    `sha256` and `size` are those of the whole file once the context has ended.
    """

    sha256 = ""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")
        self._digest = hashlib.sha256()
        self.size = 0

    def add(self, name: str, content: bytes) -> Member:
        """Append a member."""
        header = tarfile.TarInfo(name)
        header.size = len(content)
        self._write(header.tobuf(tarfile.USTAR_FORMAT))
        member = Member(self.size, len(content))
        self._write(content)
        self._write(bytes(-len(content) % BLOCK))
        return member

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                self._write(bytes(2 * BLOCK))
                self._write(bytes(-self.size % RECORD))
                self.sha256 = self._digest.hexdigest()


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as parquet; equal tables give equal bytes."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
