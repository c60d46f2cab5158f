"""Reads lists of image URLs and gathers their rows, as the image-text pipelines do; arguments: lists, root."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.stopwatch import Stopwatch
from configs.image_text import Questions, Selection, TsvLists
from storage.assets import AssetStore
from tasks.image_text.rows import Whereabouts, image_text_rows
from tasks.image_text.sources import list_names, reading, source_files
from tasks.progress import Silent
from tasks.session import Session
from tasks.stage import raw_input


def main(task: dict[str, str]) -> None:
    """Run the stage in mode `metadata` and answer with its counts and what it cost; hashing the lists is not in it."""
    source = TsvLists(paths=(task["lists"],))
    with Session(AssetStore(Path(task["root"])), Silent()).active():
        raw = raw_input("image_text_lists", source_files(source))
        with Stopwatch() as stage:
            rows = image_text_rows(
                raw=raw,
                names=list_names(raw, source),
                reading=reading(source),
                whereabouts=Whereabouts(source=source),
                select=Selection(mode="metadata"),
                questions=Questions(),
                images_per_shard=10_000,
            )
    print(json.dumps({"counts": rows.manifest.counts, "stage": stage.as_json()}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
