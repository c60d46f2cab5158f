"""Input rows as they come: numbered, and put aside on disk with their digests."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from configs.image_text import Questions
from storage.shard_set import LIST_SCHEMA
from tasks.image_text.questions import ask
from tasks.image_text.readers import OpenList, read_lists
from tasks.image_text.row import Dropped, Row, Rows
from tasks.image_text.row_keys import RowKeys
from tasks.image_text.sources import ListFile, is_image
from tasks.stage import Job

BATCH_ROWS = 20_000

ROW_SCHEMA = pa.schema([field for field in LIST_SCHEMA if field.name != "image"])
"""Rows as they are read; which image they are about is not known yet."""
DROPPED_SCHEMA = pa.schema([("row", pa.int64()), ("reason", pa.string()), ("text", pa.string())])
"""Rows that cannot be used, and why."""
SPOOLED = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
UNSPOOLED = pa.ipc.IpcReadOptions(use_threads=False)
"""Each of Arrow's threads would keep freed memory of its own."""


class Intake:
    """Reads lists one after the other; rows count from 0 over all of them, those left out included."""

    def __init__(self, job: Job, questions: Questions) -> None:
        self._job = job
        self._questions = questions if questions.from_captions else None
        self._begins: list[int] = []
        self._read: list[OpenList] = []
        self._spools = [job.workspace.scratch / name for name in ("rows.arrow", "dropped.arrow")]
        self.keys = RowKeys(job.workspace.scratch)
        self.count = 0

    def read(self, files: Sequence[ListFile], reading: Mapping[str, Any], most: int | None) -> None:
        """Read lists until their end, or until there are `most` rows."""
        folder = reading["kind"] == "folder"
        sizes = {file: file.path.stat().st_size for file in files if not (folder and is_image(file))}
        before, total = 0, sum(sizes.values())

        def moved(done: int) -> None:
            self._job.progress(min(before + done, total - 1), total, f"bytes, {self.count} rows")

        rows, dropped = self._spools
        with (
            pa.ipc.new_stream(rows, ROW_SCHEMA, options=SPOOLED) as kept,
            pa.ipc.new_stream(dropped, DROPPED_SCHEMA, options=SPOOLED) as lost,
        ):
            for found in read_lists(files, reading, moved):
                self._begins.append(self.count)
                self._read.append(found)
                self._take(found.rows if most is None else islice(found.rows, most - self.count), kept, lost)
                if self.count == most:
                    break
                before += sizes[found.file]
        self._job.progress(total, total, f"bytes, {self.count} rows")

    def batches(self) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
        """Yield usable and dropped rows, both of the same stretch of input rows."""
        rows, dropped = (pa.ipc.open_stream(pa.OSFile(str(path)), options=UNSPOOLED) for path in self._spools)
        with rows, dropped:
            for both in zip(rows, dropped, strict=True):
                pa.default_memory_pool().release_unused()
                yield both

    def file_name(self, row: int) -> str:
        """Return the name of the list that an input row is in."""
        return self._read[bisect_right(self._begins, row) - 1].file.name

    def lists(self) -> list[dict[str, Any]]:
        """Return name, rows and order of columns of every list that was read."""
        ends = [*self._begins[1:], self.count]
        return [
            {"file": found.file.name, "rows": end - begin} | ({"order": found.order} if found.order else {})
            for found, begin, end in zip(self._read, self._begins, ends, strict=True)
        ]

    def _take(self, rows: Rows, kept: pa.RecordBatchWriter, lost: pa.RecordBatchWriter) -> None:
        while chunk := list(islice(rows, BATCH_ROWS)):
            numbers: list[int] = []
            good: list[Row] = []
            bad: list[tuple[int, str, str]] = []
            for number, row in enumerate(chunk, self.count):
                if isinstance(row, Dropped):
                    bad.append((number, *row))
                else:
                    numbers.append(number)
                    good.append(ask(row, self._questions) if self._questions else row)
            self.count += len(chunk)
            self.keys.add(numbers, good)
            kept.write_batch(_batch(ROW_SCHEMA, [numbers, *zip(*good, strict=True)]))
            lost.write_batch(_batch(DROPPED_SCHEMA, list(zip(*bad, strict=True))))


def _batch(schema: pa.Schema, columns: Sequence[Sequence[Any]]) -> pa.RecordBatch:
    """Return columns as a batch, an empty one when there are no rows."""
    columns = columns if len(columns) == len(schema) else [()] * len(schema)
    return pa.record_batch(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema
    )
