"""Which rows are about the same image, which say the same, and how images are numbered, from digests on disk."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.image_text.row import Row

BUCKETS = 64
SLICE = 1_000_000
DIGESTS = np.dtype([("high", "<u8"), ("low", "<u8"), ("texts", "<u8"), ("sha256", "<u8")])
KEY = np.dtype([("row", "<i8"), *DIGESTS.descr])
REASONS = ("", "duplicate_row", "sha256_conflict")


class Verdicts(NamedTuple):
    """What digests tell about every input row."""

    images: np.ndarray
    """The row's image, numbered by first appearance; -1 where the reader dropped the row."""
    reasons: np.ndarray
    """Why the row is dropped, as a position in `REASONS`."""


class RowKeys:
    """Digests of rows, those of one image in one bucket on disk; looked at bucket by bucket, so memory stays flat."""

    def __init__(self, folder: Path) -> None:
        self._paths = [folder / f"keys-{number:02d}" for number in range(BUCKETS)]
        for path in self._paths:
            path.write_bytes(b"")

    def add(self, numbers: Sequence[int], rows: Sequence[Row]) -> None:
        """Note rows; `numbers` are their places among all input rows."""
        keys = np.empty(len(rows), KEY)
        digests = np.frombuffer(b"".join(map(_digests, rows)), DIGESTS)
        keys["row"] = numbers
        for name in DIGESTS.names or ():
            keys[name] = digests[name]
        bucket = keys["low"] % BUCKETS
        order = np.argsort(bucket, kind="stable")
        borders = np.searchsorted(bucket[order], np.arange(1, BUCKETS))
        for path, part in zip(self._paths, np.split(keys[order], borders), strict=True):
            if len(part):
                with path.open("ab") as file:
                    part.tofile(file)

    def verdicts(self, count: int) -> Verdicts:
        """Number the images of `count` input rows and find those rows that repeat or contradict an earlier one."""
        assert count < 2**31, "rows are held as int32"
        images = np.full(count, -1, np.int32)
        reasons = np.zeros(count, np.uint8)
        for path in self._paths:
            keys = np.fromfile(path, KEY)
            keys = keys[np.lexsort((keys["row"], keys["high"], keys["low"]))]
            begins = _changes(keys["low"], keys["high"])
            group = np.cumsum(begins) - 1
            images[keys["row"]] = keys["row"][begins][group]
            reasons[keys["row"]] = _reasons(keys, group)
        _number(images)
        return Verdicts(images, reasons)


def _digests(row: Row) -> bytes:
    """Return digests of the image's address and of the texts, and the beginning of the expected SHA-256."""
    address = blake2b((row.place or row.url).encode(), digest_size=16).digest()
    texts = f"{row.caption}\0{row.question}\0{row.answer}\0{row.extra}"
    expected = bytes.fromhex(row.sha256[:16]) if row.sha256 else bytes(8)
    return address + blake2b(texts.encode(), digest_size=8).digest() + expected


def _changes(*columns: np.ndarray) -> np.ndarray:
    """Mark the entries that differ from the one before in any column; the first one does."""
    marks = np.ones(len(columns[0]), bool)
    marks[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return marks


def _reasons(keys: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Judge the rows of a bucket, sorted by image (`group`) and row: the first SHA-256 and the first of equals stay."""
    told = np.flatnonzero(keys["sha256"])
    known, first = np.unique(group[told], return_index=True)
    expected = np.zeros(len(keys), np.uint64)
    expected[known] = keys["sha256"][told[first]]
    conflict = (keys["sha256"] != 0) & (keys["sha256"] != expected[group])
    order = np.lexsort((keys["row"], conflict, keys["texts"], group))
    reasons = np.empty(len(keys), np.uint8)
    reasons[order] = ~_changes(group[order], keys["texts"][order])
    reasons[conflict] = REASONS.index("sha256_conflict")
    return reasons


def _number(owners: np.ndarray) -> None:
    """Replace, in place, the first row of each row's image by the image's number."""
    numbers = np.empty(len(owners), np.int32)
    images = 0
    for begin in range(0, len(owners), SLICE):
        part = owners[begin : begin + SLICE]
        first = part == np.arange(begin, begin + len(part))
        numbers[begin : begin + len(part)] = np.cumsum(first) + (images - 1)
        images += int(first.sum())
    for begin in range(0, len(owners), SLICE):
        part = owners[begin : begin + SLICE]
        part[...] = np.where(part < 0, -1, numbers[part])
