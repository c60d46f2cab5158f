"""What a folder of shards says of its images, streamed shard by shard; the newest shard that lists an image decides."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

NAME = re.compile(r"(?:retry(?P<attempt>\d+)-)?(?P<number>\d+)")
FILE = re.compile(r"(?P<name>(?:retry\d+-)?\d+)(?:\.tar|\.parquet|_stats\.json)")
STATISTICS = ("rows", "successes", "tar_bytes", "tar_sha256")


@dataclass(frozen=True, slots=True)
class Shard:
    """A whole shard, as its statistics describe it."""

    name: str
    attempt: int
    """0, or the number of the retry round."""
    rows: int
    stored: int
    tar_bytes: int
    tar_sha256: str

    @property
    def tar(self) -> str:
        """The file name of its tar."""
        return f"{self.name}.tar"


class ShardTables:
    """The tables of all shards of a folder, in order: the first attempt by number, then every retry round."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = {match["name"] for path in folder.iterdir() if (match := FILE.fullmatch(path.name))}
        self.shards = [_open(folder, name) for name in sorted(names, key=_order)]

    def decided(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """Yield every shard's position and its rows, without images that a later round lists again.

        `image` is always among the columns; the rows of an image follow one another.
        """
        later = self._listed_after()
        for position, shard in enumerate(self.shards):
            table = self._read(shard, ["image", *(c for c in columns if c != "image")])
            if again := later.get(shard.attempt):
                table = table.filter(~np.isin(image_numbers(table), np.concatenate(again)))
            yield position, table

    def _listed_after(self) -> dict[int, list[NDArray[np.int64]]]:
        """Return for each attempt the images of later rounds; an attempt without any is absent."""
        attempts = sorted({shard.attempt for shard in self.shards})
        later: dict[int, list[NDArray[np.int64]]] = {}
        for shard in self.shards:
            if shard.attempt > 0:
                numbers = np.unique(image_numbers(self._read(shard, ["image"])))
                for attempt in attempts[: attempts.index(shard.attempt)]:
                    later.setdefault(attempt, []).append(numbers)
        return later

    def _read(self, shard: Shard, columns: Sequence[str]) -> pa.Table:
        import pyarrow.parquet as pq

        path = self.folder / f"{shard.name}.parquet"
        try:
            with pq.ParquetFile(path) as file:
                table = file.read(columns=list(columns))
        except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
            raise _broken(shard.name, f"its table is missing or damaged ({error})") from None
        if table.num_rows != shard.rows:
            raise _broken(shard.name, f"its table has {table.num_rows} rows, its statistics say {shard.rows}")
        return table


def image_numbers(table: pa.Table) -> NDArray[np.int64]:
    """Return the image of every row."""
    return table["image"].to_numpy()


def first_rows(table: pa.Table) -> NDArray[np.bool_]:
    """Return which rows are the first of their image."""
    return np.diff(image_numbers(table), prepend=-1) != 0


def read_part(path: Path, offset: int, size: int) -> bytes:
    """Return so many bytes of a file from an offset on."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.pread(file, size, offset)
    finally:
        os.close(file)


def _order(name: str) -> tuple[int, int]:
    match = NAME.fullmatch(name)
    assert match
    return int(match["attempt"] or 0), int(match["number"])


def _open(folder: Path, name: str) -> Shard:
    """Return a shard; `ValueError` where its statistics and its tar do not say the same."""
    try:
        stats = json.loads((folder / f"{name}_stats.json").read_bytes())
        shard = Shard(name, _order(name)[0], *(stats[field] for field in STATISTICS))
    except FileNotFoundError:
        raise _broken(name, f"{name}_stats.json is missing, so it was never finished") from None
    except (json.JSONDecodeError, KeyError, TypeError):
        raise _broken(name, f"{name}_stats.json is damaged") from None
    try:
        size = (folder / shard.tar).stat().st_size
    except FileNotFoundError:
        raise _broken(name, f"{shard.tar} is missing") from None
    if size != shard.tar_bytes:
        raise _broken(name, f"{shard.tar} has {size} bytes, its statistics say {shard.tar_bytes}")
    return shard


def _broken(name: str, what: str) -> ValueError:
    return ValueError(f"shard {name} is not whole: {what}; run the pipeline again, and it is made anew")
