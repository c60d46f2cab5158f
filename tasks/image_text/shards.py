"""The stage that fetches images and packs them into WebDataset shards."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.image_text import Crawling, Fetching, ImageFormat, Retry
from configs.image_text_sample import SAMPLE_HOST
from storage.assets import Asset, Unit, UnitRecord
from storage.files import write_atomic
from storage.hashing import file_sha256
from storage.raw import RawInput
from tasks.stage import Job, StageResult, stage

if TYPE_CHECKING:
    from tasks.image_text.addresses import Endpoint


@stage("image_text_shards")
def image_text_shards(
    job: Job,
    *,
    rows: Asset,
    images: Asset | RawInput | None,
    images_per_shard: int,
    fetching: Fetching,
    crawling: Crawling,
    image: ImageFormat,
    retry: Retry,
) -> StageResult:
    """Fetch every listed image and write tars, tables and statistics, shard by shard.

    `images` are local ones, or the generated ones, which are served from a web site on this machine. Each round of
    `retry` lists the images that failed until then and may be tried again, and writes them to patch shards.
    """
    from tasks.image_text.retry import write_retry_lists

    lists = sorted((rows.folder / "lists").glob("*.parquet"), key=lambda path: int(path.stem))
    units: list[Unit] = []
    statuses: Counter[str] = Counter()
    with _web_site(images) as hosts:
        shards = _Shards(job, fetching, crawling, image, hosts, _write_raw_paths(job, images))
        for attempt in range(retry.rounds + 1):
            prefix = f"retry{attempt}-" if attempt else ""
            fresh = [shards.unit(f"{prefix}{number:05d}", path) for number, path in enumerate(lists)]
            units += fresh
            records = shards.make(units)
            for record in records[len(units) - len(fresh) :]:
                statuses.update(record.result["status_dict"])
            if attempt < retry.rounds:
                tables = [job.folder / f"{unit.id}.parquet" for unit in fresh]
                folder = job.workspace.scratch / f"retry{attempt + 1}"
                again = write_retry_lists(lists, tables, retry.classes, images_per_shard, folder)
                statuses.subtract(again.statuses)
                lists = again.paths
    return _result(records, statuses)


class _Shards:
    """Makes the units of the stage, and runs them in sight of whoever watches."""

    def __init__(
        self,
        job: Job,
        fetching: Fetching,
        crawling: Crawling,
        image: ImageFormat,
        hosts: Mapping[str, Endpoint],
        raw: Path,
    ) -> None:
        self._job, self._fetching, self._crawling, self._image = job, fetching, crawling, image
        self._hosts, self._raw = hosts, raw
        self._images: dict[str, int] = {}

    def unit(self, name: str, path: Path) -> Unit:
        """Return the unit that makes a shard of a list."""
        import numpy as np
        import pyarrow.parquet as pq

        from tasks.image_text.shard import ShardTask

        numbers = pq.read_table(path, columns=["image"])["image"].to_numpy()
        self._images[name] = int(np.count_nonzero(np.diff(numbers, prepend=-1)))
        task = ShardTask(path, self._fetching, self._crawling, self._image, self._hosts, self._raw)
        return self._job.unit(name, [file_sha256(path), self._fetching, self._image], task)

    def make(self, units: Sequence[Unit]) -> list[UnitRecord]:
        """Make the shards that are not there yet."""
        from tasks.image_text.live import LIVE, Watch
        from tasks.image_text.shard import fetch_shard

        live = self._job.folder / LIVE
        live.mkdir(parents=True, exist_ok=True)
        for leftover in live.glob("*.json"):
            leftover.unlink()
        watch = Watch(live, sum(self._images.values()), self._job.progress)
        return self._job.map(fetch_shard, units, fan_out_from=1, watch=watch)


@contextlib.contextmanager
def _web_site(images: Asset | RawInput | None) -> Iterator[Mapping[str, Endpoint]]:
    """Serve generated images while the block runs; yield who stands behind which host."""
    if not isinstance(images, Asset):
        yield {}
        return
    from tasks.image_text.addresses import Endpoint
    from tasks.samples.site_process import serve

    with serve(images.folder) as site:
        yield {SAMPLE_HOST: Endpoint(site.host, site.port)}


def _write_raw_paths(job: Job, images: Asset | RawInput | None) -> Path:
    """Write where workers find local images, by their content."""
    paths = images.paths() if isinstance(images, RawInput) else {}
    path = job.workspace.scratch / "raw.json"
    write_atomic(path, json.dumps({content: str(place) for content, place in paths.items()}))
    return path


def _result(records: Sequence[UnitRecord], statuses: Counter[str]) -> StageResult:
    from storage.shard_set import OK

    images = statuses.total()
    failures = sorted(((n, s) for s, n in statuses.items() if s != OK and n), key=lambda f: (-f[0], f[1]))
    counts: dict[str, Any] = {
        "shards": len(records),
        "images": images,
        "stored": statuses[OK],
        **{status: count for count, status in failures},
        "received": sum(record.result["bytes"] for record in records),
    }
    if unconverted := sum(record.result.get("unconverted", 0) for record in records):
        counts["stored_without_applying_their_colour_profile"] = unconverted
    return StageResult(counts, metrics={"share_stored": round(statuses[OK] / images, 4) if images else 0.0})
