"""Small shard folders, written by the contract alone: storage/shard_set.py says what is in them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.image_text import Duplicates, ImageSplits
from storage.assets import Asset, AssetStore
from storage.shard_set import OK, REFUSED, SHARD_SCHEMA, Member, TarWriter, image_key
from tasks.image_text.index import image_text_index
from tasks.progress import Silent
from tasks.session import Session
from tasks.stage import Job, StageResult, stage

NOWHERE = Member(0, 0)


@dataclass
class Listed:
    """An image of a list and what became of it."""

    image: int
    raw: bytes = b""
    """What was downloaded; something of its own when empty."""
    phash: int | None = None
    """Some hash that is far from all others when absent."""
    status: str = OK
    url: str = ""
    jpeg: bytes = b"\xff\xd8\xff not for decoding"
    texts: Sequence[dict[str, Any]] = field(default_factory=lambda: [{"caption": "a caption"}])
    size: tuple[int, int] = (64, 48)
    detail: str = ""

    def __post_init__(self) -> None:
        self.raw = self.raw or f"bytes of image {self.image}".encode()
        self.url = self.url or f"http://pictures.example/{self.image}.jpg"
        if self.phash is None:
            self.phash = int.from_bytes(hashlib.sha256(self.raw).digest()[-8:], "big")

    @property
    def stored(self) -> bool:
        return self.status == OK

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.raw).hexdigest() if self.stored or self.status in REFUSED else ""

    def rows(self) -> list[dict[str, Any]]:
        blank = {"caption": "", "question": "", "answer": "", "templated": False, "extra": ""}
        return [blank | {"row": 10 * self.image + k} | text for k, text in enumerate(self.texts)]


def write_shards(folder: Path, images: Sequence[Listed], per_shard: int = 4, attempt: int = 0) -> Path:
    """Write images into shards: of the first attempt by their number, of a retry round as they come."""
    folder.mkdir(parents=True, exist_ok=True)
    numbered = enumerate(images) if attempt else ((i.image, i) for i in images)
    shards: dict[int, list[Listed]] = {}
    for number, image in numbered:
        shards.setdefault(number // per_shard, []).append(image)
    for number, members in shards.items():
        _write_shard(folder, f"retry{attempt}-{number:05d}" if attempt else f"{number:05d}", members)
    return folder


def _write_shard(folder: Path, name: str, images: Sequence[Listed]) -> None:
    table = []
    with TarWriter(folder / f"{name}.tar") as writer:
        for image in images:
            rows, key = image.rows(), image_key(image.image)
            known = {"url": image.url, "sha256": image.sha256, "width": image.size[0], "height": image.size[1]}
            known |= {"original_width": 2 * image.size[0], "original_height": 2 * image.size[1]}
            jpg = text = facts = NOWHERE
            if image.stored:
                jpg = writer.add(f"{key}.jpg", image.jpeg)
                facts = writer.add(f"{key}.json", json.dumps({"key": key, **known, "rows": rows}).encode())
                text = writer.add(f"{key}.txt", rows[0]["caption"].encode())
            common = known | {"key": key, "image": image.image, "status": image.status, "detail": image.detail}
            common |= {"http_status": 0, "bytes": len(image.raw), "phash": image.phash if image.stored else 0}
            common |= {"stored_sha256": hashlib.sha256(image.jpeg).hexdigest() if image.stored else ""}
            for member, place in (("jpg", jpg), ("txt", text), ("json", facts)):
                common |= {f"{member}_offset": place.offset, f"{member}_size": place.size}
            table += [common | row for row in rows]
    pq.write_table(pa.Table.from_pylist(table, schema=SHARD_SCHEMA), folder / f"{name}.parquet")
    statuses = Counter(image.status for image in images)
    stats = {"count": len(images), "rows": len(table), "successes": statuses[OK], "status_dict": dict(statuses)}
    stats |= {"tar_bytes": writer.size, "tar_sha256": writer.sha256}
    (folder / f"{name}_stats.json").write_text(json.dumps(stats))


@stage("published")
def published(job: Job, *, folder: str) -> StageResult:
    """The files of a folder as an asset."""
    shutil.copytree(folder, job.folder, dirs_exist_ok=True)
    return StageResult()


def publish(store: AssetStore, folder: Path) -> Asset:
    """Return a folder as an asset."""
    with Session(store, Silent()).active():
        return published(folder=str(folder))


def index_of(store: AssetStore, folder: Path, duplicates: Duplicates | None = None, **splits: Any) -> Asset:
    """Run the stage `image_text_index` on a folder of shards."""
    shards = publish(store, folder)
    with Session(store, Silent()).active():
        return image_text_index(
            shards=shards, duplicates=duplicates or Duplicates(), splits=ImageSplits(**splits)
        )  # fmt: skip
