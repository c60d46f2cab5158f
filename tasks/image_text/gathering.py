"""From rows in the order of the lists to rows by image: spread over groups of shards on disk, each sorted in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.shard_set import LIST_SCHEMA
from tasks.image_text.intake import DROPPED_SCHEMA, SPOOLED, UNSPOOLED, Intake
from tasks.image_text.row import TEXT_SHOWN
from tasks.image_text.row_keys import REASONS

GROUP_ROWS = 30_000
MOST_GROUPS = 200
"""Files that are open at once."""


class Gathering:
    """The rows of an intake by image, however far apart they are.

    Rows that say the same of the same image, or that expect another SHA-256 than an earlier row of the image, are
    dropped. Memory holds nine bytes for each input row and the rows of one group of shards.
    """

    def __init__(self, intake: Intake, scratch: Path) -> None:
        self._intake = intake
        self._scratch = scratch
        self._verdicts = intake.keys.verdicts(intake.count)

    def lists(self, limit: int, images_per_shard: int) -> Iterator[tuple[int, pa.Table]]:
        """Yield number and rows of every shard, of at most `limit` images in all."""
        group_of_shard = self._groups(limit, images_per_shard)
        paths = [self._scratch / f"group-{n:03d}.arrow" for n in range(group_of_shard.max(initial=-1) + 1)]
        self._spread(paths, group_of_shard, limit, images_per_shard)
        for path in paths:
            pa.default_memory_pool().release_unused()
            with pa.ipc.open_stream(pa.OSFile(str(path)), options=UNSPOOLED) as reader:
                rows = _with_expected(_sorted(reader.read_all()))
            shards = rows["image"].to_numpy() // images_per_shard
            for begin, part in _cut(rows, shards):
                yield int(shards[begin]), part.combine_chunks()
            path.unlink()

    def dropped(self) -> Iterator[pa.RecordBatch]:
        """Yield all dropped rows with the names of their lists, in their order."""
        for rows, dropped in self._intake.batches():
            reasons = self._verdicts.reasons[rows["row"].to_numpy()]
            found = rows.take(pa.array(np.flatnonzero(reasons)))
            texts = pc.binary_join_element_wise(*(found[n] for n in ("url", "caption", "question", "answer")), " ")
            columns = [
                found["row"],
                pa.array([REASONS[n] for n in reasons[reasons > 0]], pa.string()),
                pc.utf8_slice_codeunits(texts, 0, TEXT_SHOWN),
            ]
            both = pa.Table.from_batches([dropped, pa.record_batch(columns, DROPPED_SCHEMA)]).sort_by("row")
            names = [self._intake.file_name(row) for row in both["row"].to_pylist()]
            yield from both.add_column(1, "file", pa.array(names, pa.string())).combine_chunks().to_batches()

    def _groups(self, limit: int, images_per_shard: int) -> np.ndarray:
        """Return the group of each shard: neighbours, together of about `GROUP_ROWS` rows."""
        images, reasons = self._verdicts
        rows = np.zeros(0, np.int64)
        for begin in range(0, len(images), GROUP_ROWS):
            part = images[begin : begin + GROUP_ROWS]
            kept = part[(part >= 0) & (part < limit) & (reasons[begin : begin + GROUP_ROWS] == 0)]
            more = np.bincount(kept // images_per_shard, minlength=len(rows))
            more[: len(rows)] += rows
            rows = more
        return (np.cumsum(rows) - 1) // max(GROUP_ROWS, -(-rows.sum() // MOST_GROUPS))

    def _spread(self, paths: list[Path], group_of_shard: np.ndarray, limit: int, images_per_shard: int) -> None:
        """Write every row that stays into the file of its group."""
        with ExitStack() as stack:
            files = [stack.enter_context(pa.ipc.new_stream(path, LIST_SCHEMA, options=SPOOLED)) for path in paths]
            for rows, _ in self._intake.batches():
                numbers = rows["row"].to_numpy()
                images = self._verdicts.images[numbers].astype(np.int64)
                stays = (self._verdicts.reasons[numbers] == 0) & (images < limit)
                batch = pa.record_batch([pa.array(images), *rows.columns], LIST_SCHEMA).filter(pa.array(stays))
                table = _sorted(pa.Table.from_batches([batch]))
                groups = group_of_shard[table["image"].to_numpy() // images_per_shard]
                for begin, part in _cut(table, groups):
                    files[groups[begin]].write_table(part)


def _sorted(rows: pa.Table) -> pa.Table:
    """Return rows by image, and those of an image in their order."""
    return rows.take(np.lexsort((rows["row"].to_numpy(), rows["image"].to_numpy())))


def _cut(rows: pa.Table, numbers: np.ndarray) -> Iterator[tuple[int, pa.Table]]:
    """Yield the runs of equal numbers, each with the position where it begins."""
    borders = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    for begin, end in pairwise(borders):
        if end > begin:
            yield begin, rows.slice(begin, end - begin)


def _with_expected(rows: pa.Table) -> pa.Table:
    """Give every row of an image the SHA-256 that one of them expects."""
    told = np.flatnonzero(pc.not_equal(rows["sha256"], "").to_numpy())
    if not len(told):
        return rows
    images = rows["image"].to_numpy()
    known, first = np.unique(images[told], return_index=True)
    place = np.searchsorted(known, images).clip(max=len(known) - 1)
    origin = np.where(known[place] == images, told[first[place]], np.arange(len(images)))
    position = rows.schema.get_field_index("sha256")
    return rows.set_column(position, rows.schema.field(position), rows["sha256"].take(origin))
