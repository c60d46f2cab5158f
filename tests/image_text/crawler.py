"""A crawl in a process of its own, to be killed: python -m tests.image_text.crawler ROOT ROWS.json WORKERS."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from configs.image_text import Crawling, Fetching, ImageFormat, Retry
from storage.assets import AssetStore
from tasks.image_text.shards import image_text_shards
from tasks.progress import Silent
from tasks.session import Session
from tasks.units import Workers
from tests.image_text.sites import listed_rows

IMAGES_PER_SHARD = 8


def main(root: str, rows: str, workers: str) -> None:
    """Fetch the rows from wherever they are."""
    session = Session(AssetStore(Path(root)), Silent(), workers=Workers.parse(workers))
    with session.active():
        shards = image_text_shards(
            rows=listed_rows(rows=json.loads(Path(rows).read_bytes()), images_per_shard=IMAGES_PER_SHARD),
            images=None,
            images_per_shard=IMAGES_PER_SHARD,
            fetching=Fetching(private_addresses=True, deadline_seconds=20),
            crawling=Crawling(connections=2),
            image=ImageFormat(side=64),
            retry=Retry(),
        )
    print(session.outcomes[-1].status, shards.folder, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
