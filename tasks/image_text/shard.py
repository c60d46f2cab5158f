"""One shard: its images are fetched or read, checked and encoded by a worker, and packed in their order."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from configs.image_text import Crawling, Fetching, ImageFormat
from storage.assets import SCRATCH, Unit
from storage.shard_set import OK, Member
from tasks.image_text.addresses import Endpoint
from tasks.image_text.crawl import Target, crawl
from tasks.image_text.fetch import FetchError
from tasks.image_text.in_time import picture_in_time
from tasks.image_text.live import LIVE, Tally
from tasks.image_text.packing import Fate, write_shard
from tasks.image_text.picture import Picture, UnusableError
from tasks.units import UnitOutput

DECODERS = 2
"""Threads per worker that decode, resize and encode, most of the time without Python's lock."""
REPORT_SECONDS = 0.5
UNCONVERTED = "its colour profile was not applied"
"""Detail of a stored image whose colours may be off, with the reason."""

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class ShardTask:
    """What a worker needs for a shard."""

    list: Path
    fetching: Fetching
    crawling: Crawling
    image: ImageFormat
    hosts: Mapping[str, Endpoint]
    """Servers of the pipeline's own, by the host name that stands for them in URLs."""
    raw: Path
    """JSON with the paths of raw files by their SHA-256."""


def fetch_shard(folder: Path, unit: Unit) -> UnitOutput:
    """Write `<unit>.tar`, `<unit>.parquet` and, last, `<unit>_stats.json`; times are in the result alone."""
    task: ShardTask = unit.payload
    started = time.perf_counter()
    rows = pq.read_table(task.list).to_pylist()
    images = [list(group) for _, group in groupby(rows, itemgetter("image"))]
    live = folder / LIVE / f"{unit.id}.json"
    with tempfile.TemporaryFile(dir=folder / SCRATCH) as spool:
        collector = Collector(task, images, spool)
        asyncio.run(collector.collect(live))
        files = write_shard(folder, unit.id, unit.key, images, collector.fates, collector.jpeg)
    live.unlink(missing_ok=True)
    return UnitOutput(
        files,
        {"rows": len(rows), **collector.tally.as_json(), "seconds": round(time.perf_counter() - started, 3)},
    )


class Collector:
    """Brings the images of a shard to their fates; JPEGs go into a spool, in the order in which they arrive.

    The spool keeps memory flat however long the first image of a shard takes.
    """

    def __init__(self, task: ShardTask, images: Sequence[Rows], spool: BinaryIO) -> None:
        self._task, self._images, self._spool = task, images, spool
        self._end = 0
        self.fates = [Fate(rows[0]["image"], rows[0]["url"]) for rows in images]
        self.tally = Tally()

    async def collect(self, live: Path) -> None:
        """Fetch and read everything; the counts so far stand in `live`."""
        with ThreadPoolExecutor(DECODERS, "decoder") as self._decoders:
            reporting = asyncio.create_task(self._report(live))
            await self._fetch_all()
            await self._read_all()
            reporting.cancel()
        self._spool.flush()

    async def _report(self, live: Path) -> None:
        while True:
            self.tally.save(live)
            await asyncio.sleep(REPORT_SECONDS)

    async def _fetch_all(self) -> None:
        task = self._task
        targets = [Target(n, rows[0]["url"]) for n, rows in enumerate(self._images) if not rows[0]["place"]]
        await crawl(
            targets, task.fetching, task.crawling, task.hosts, accept=self._fetched, refuse=self._refused
        )  # fmt: skip

    async def _read_all(self) -> None:
        places = iter([(n, rows[0]["place"]) for n, rows in enumerate(self._images) if rows[0]["place"]])

        async def work() -> None:
            for position, place in places:
                await self._judge(position, read_place(place, self._task.raw))

        async with asyncio.TaskGroup() as group:
            for _ in range(DECODERS):
                group.create_task(work())

    def _refused(self, target: Target, error: FetchError) -> None:
        fate = self.fates[target.position]
        fate.status, fate.http_status, fate.detail = error.status, error.http_status, error.detail
        self.tally.count(fate.status, 0)

    async def _fetched(self, target: Target, body: bytes) -> None:
        self.fates[target.position].http_status = 200
        await self._judge(target.position, body)

    async def _judge(self, position: int, body: bytes) -> None:
        fate, expected = self.fates[position], self._images[position][0]["sha256"]
        loop = asyncio.get_running_loop()
        picture = await loop.run_in_executor(self._decoders, judge, fate, body, expected, self._task)
        if picture is not None:
            self._spool.write(picture.jpeg)
            fate.jpg = Member(self._end, len(picture.jpeg))
            self._end += len(picture.jpeg)
        self.tally.count(fate.status, fate.bytes)
        self.tally.unconverted += fate.status == OK and bool(fate.detail)

    def jpeg(self, fate: Fate) -> bytes:
        """Return the JPEG of a stored image whose member is still the one in the spool."""
        return os.pread(self._spool.fileno(), fate.jpg.size, fate.jpg.offset)


def judge(fate: Fate, body: bytes, expected: str, task: ShardTask) -> Picture | None:
    """Note what a body is, and return the image to store if it is one."""
    fate.bytes, fate.sha256 = len(body), hashlib.sha256(body).hexdigest()
    if expected and fate.sha256 != expected:
        fate.status, fate.detail = "hash_mismatch", f"{expected} was expected"
        return None
    try:
        picture = picture_in_time(body, task.image, task.fetching.deadline_seconds)
    except UnusableError as error:
        fate.status, fate.detail = error.status, error.detail
        return None
    fate.status, fate.phash = OK, picture.phash
    fate.detail = f"{UNCONVERTED}: {picture.profile}" if picture.profile else ""
    fate.width, fate.height = picture.width, picture.height
    fate.original_width, fate.original_height = picture.original_width, picture.original_height
    fate.stored_sha256 = hashlib.sha256(picture.jpeg).hexdigest()
    return picture


def read_place(place: str, raw: Path) -> bytes:
    """Return the bytes of `raw:<sha256>`, a raw file, or of `raw:<sha256>@<offset>+<size>`, a part of one."""
    content, _, part = place.removeprefix("raw:").partition("@")
    path = Path(_raw_paths(raw)[content])
    if not part:
        return path.read_bytes()
    offset, _, size = part.partition("+")
    with path.open("rb") as file:
        file.seek(int(offset))
        return file.read(int(size))


@lru_cache(maxsize=1)
def _raw_paths(raw: Path) -> dict[str, str]:
    return json.loads(raw.read_bytes())
