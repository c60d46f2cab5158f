"""Lists of images that failed and may be tried again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.files import write_atomic
from storage.shard_set import parquet_bytes


@dataclass(frozen=True, slots=True)
class RetryLists:
    """Lists to try again, and what the images in them failed with."""

    paths: list[Path]
    statuses: Counter[str]


def write_retry_lists(
    lists: Sequence[Path], tables: Sequence[Path], classes: Sequence[str], images_per_shard: int, folder: Path
) -> RetryLists:
    """Gather the rows whose image failed with one of these statuses into new lists; equal failures, equal bytes.

    `tables` are those of the shards that the lists made, row for row.
    """
    statuses: Counter[str] = Counter()

    def failed() -> Iterator[pa.Table]:
        for path, table in zip(lists, tables, strict=True):
            outcome = pq.read_table(table, columns=["image", "status"])
            chosen = pc.is_in(outcome["status"], pa.array(classes, pa.string()))
            firsts = outcome.filter(chosen).group_by("image", use_threads=False).aggregate([("status", "first")])
            statuses.update(firsts["status_first"].to_pylist())
            yield pq.read_table(path).filter(chosen)

    paths = []
    for number, rows in enumerate(_pack(failed(), images_per_shard)):
        path = folder / f"{number:05d}.parquet"
        write_atomic(path, parquet_bytes(rows.combine_chunks()))
        paths.append(path)
    return RetryLists(paths, statuses)


def _pack(tables: Iterable[pa.Table], images: int) -> Iterator[pa.Table]:
    """Cut a stream of rows, sorted by image, into tables of so many images."""
    rest: pa.Table | None = None
    for table in tables:
        rest = table if rest is None else pa.concat_tables([rest, table])
        starts = _starts(rest)
        while len(starts) > images:
            yield rest.slice(0, int(starts[images]))
            rest = rest.slice(int(starts[images]))
            starts = _starts(rest)
    if rest is not None and rest.num_rows:
        yield rest


def _starts(rows: pa.Table) -> np.ndarray:
    """Return the positions where another image begins."""
    return np.flatnonzero(np.diff(rows["image"].to_numpy(), prepend=-1))
