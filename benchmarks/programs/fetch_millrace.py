"""Fetches a list of images into shards, as the image-text pipelines do.

Arguments: list, root, workers, connections, shard (images of one). Answers with all CPU-seconds of this process and its
workers, their starts and imports included, and with the images that were stored.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.stopwatch import cpu_seconds
from configs.image_text import Crawling, Fetching, ImageFormat, Questions, Retry, Selection, TsvLists
from storage.assets import AssetStore
from tasks.image_text.rows import Whereabouts, image_text_rows
from tasks.image_text.shards import image_text_shards
from tasks.image_text.sources import list_names, reading, source_files
from tasks.progress import Silent
from tasks.session import Session
from tasks.stage import raw_input
from tasks.units import Workers


def main(task: dict[str, Any]) -> None:
    """Run the stages from the list to shards."""
    source = TsvLists(paths=(task["list"],))
    session = Session(AssetStore(Path(task["root"])), Silent(), workers=Workers.parse(str(task["workers"])))
    with session.active():
        raw = raw_input("image_text_lists", source_files(source))
        rows = image_text_rows(
            raw=raw,
            names=list_names(raw, source),
            reading=reading(source),
            whereabouts=Whereabouts(source=source),
            select=Selection(),
            questions=Questions(),
            images_per_shard=task["shard"],
        )
        shards = image_text_shards(
            rows=rows,
            images=None,
            images_per_shard=task["shard"],
            fetching=Fetching(private_addresses=True, deadline_seconds=10, retries=0),
            crawling=Crawling(connections=task["connections"], per_host=task["connections"]),
            image=ImageFormat(side=256, quality=95),
            retry=Retry(),
        )
    print(json.dumps({"cpu": cpu_seconds(), "stored": shards.manifest.counts["stored"]}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
