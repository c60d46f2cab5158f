"""A web site with every way to go wrong, and a stage that lists its pages as the pipeline's lists do."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from configs.image_text_sample import SAMPLE_HOST
from storage.assets import Asset
from storage.files import walk_files, write_atomic
from storage.shard_set import LIST_SCHEMA, parquet_bytes
from tasks.samples.trouble import Trouble, troubles, write_trouble_files
from tasks.samples.website import Page, write_site
from tasks.stage import Job, StageResult, stage
from tests.image_text.pictures import encoded, scenery


def make_site(folder: Path, good: Mapping[str, bytes]) -> dict[str, str]:
    """Write a site of good images and of everything that goes wrong; return the expected status by path."""
    pages = {f"/{name}": trouble for name, trouble in troubles("good.jpg").items()}
    for name, content in {"good.jpg": encoded(scenery(300, 240, 99), quality=95), **good}.items():
        (folder / name).write_bytes(content)
        pages[f"/{name}"] = Trouble(Page(file=name), "ok")
    write_trouble_files(folder)
    pages["/moved"] = Trouble(Page(behaviour="redirect", location="/good.jpg"), "ok")
    pages["/moved_far"] = Trouble(Page(behaviour="redirect", location=url("/good.jpg")), "ok")
    write_site(folder, {path: trouble.page for path, trouble in pages.items()})
    return {path: trouble.status for path, trouble in pages.items()}


@stage("listed_site")
def listed_site(job: Job, *, place: str) -> StageResult:
    """Take the site that lies in a folder over into an asset."""
    for name in walk_files(Path(place)):
        write_atomic(job.folder / name, (Path(place) / name).read_bytes())
    return StageResult()


@stage("listed_rows")
def listed_rows(job: Job, *, rows: Sequence[Mapping[str, Any]], images_per_shard: int) -> StageResult:
    """Write rows as the lists of shards; a row is what differs from an empty one."""
    empty = {"row": 0, "url": "", "place": "", "sha256": "", "caption": "", "question": "", "answer": "", "extra": ""}
    lists: dict[int, list[dict[str, Any]]] = {}
    for number, row in enumerate(rows):
        whole = {**empty, "row": number, "image": number, "templated": False, **row}
        lists.setdefault(whole["image"] // images_per_shard, []).append(whole)
    for number, entries in lists.items():
        table = pa.Table.from_pylist(entries, schema=LIST_SCHEMA)
        write_atomic(job.folder / "lists" / f"{number:05d}.parquet", parquet_bytes(table))
    return StageResult()


def url(path: str) -> str:
    """Return the URL of a page."""
    return f"http://{SAMPLE_HOST}{path}"


def sha256(content: bytes) -> str:
    """Return the SHA-256 of bytes as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def noisy(seed: int) -> bytes:
    """Return a JPEG that resembles no other one."""
    buffer = io.BytesIO()
    scenery(96, 80, seed).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def files_of(asset: Asset) -> dict[str, bytes]:
    """Return the published files of an asset."""
    return {record.path: (asset.folder / record.path).read_bytes() for record in asset.manifest.files}
