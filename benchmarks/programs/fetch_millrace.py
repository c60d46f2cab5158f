"""Fetches a list of images into shards, as the image-text pipelines do; arguments: list, root, workers, connections.

Answers with all CPU-seconds of this process and its workers, their starts and imports included.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.stopwatch import cpu_seconds
from configs.image_text import Crawling, Fetching, ImageFormat, Questions, Retry, Selection, TsvLists
from storage.assets import AssetStore
from tasks.image_text.rows import image_text_rows
from tasks.image_text.shards import image_text_shards
from tasks.image_text.sources import source_files
from tasks.progress import Silent
from tasks.session import Session
from tasks.stage import raw_input
from tasks.units import Workers


def main(task: dict[str, str]) -> None:
    """Run the stages from the list to shards."""
    source = TsvLists(paths=(task["list"],), order="url_first")
    connections = int(task["connections"])
    session = Session(AssetStore(Path(task["root"])), Silent(), workers=Workers.parse(task["workers"]))
    with session.active():
        raw = raw_input("image_text_lists", source_files(source))
        rows = image_text_rows(
            raw=raw, source=source, select=Selection(), questions=Questions(), images_per_shard=int(task["shard"])
        )
        shards = image_text_shards(
            rows=rows,
            images=None,
            images_per_shard=int(task["shard"]),
            fetching=Fetching(private_addresses=True, deadline_seconds=10, retries=0),
            crawling=Crawling(connections=connections, per_host=connections),
            image=ImageFormat(side=256, quality=95),
            retry=Retry(),
        )
    print(json.dumps({"cpu": cpu_seconds(), "folder": str(shards.folder)}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
