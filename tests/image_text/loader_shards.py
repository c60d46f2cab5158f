"""A small shard set and its index, written by the contract of `storage.shard_set`, with texts that name their row."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from storage.shard_index import ENTRY, INDEX, SPLITS
from storage.shard_set import TarWriter, image_key
from tests.image_text.pictures import encoded, scenery

SIZES = ((120, 90), (64, 64), (70, 130))
"""Width and height of images, in turn."""


@dataclass(frozen=True)
class ShardFolders:
    """Where shards and their index lie, and what was written."""

    shards: Path
    index: Path
    images: list[dict[str, Any]]
    """The JSON member of every image, and its `jpeg` and `txt`."""

    def rows(self, split: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Return the (image, text) pairs of a split in the order of its index."""
        return [(image, text) for image in self.images if image["split"] == split for text in image["rows"]]


def write_shards(folder: Path, images: int = 24, per_shard: int = 8) -> ShardFolders:
    """Write images with one caption, or with three questions for every fourth; every sixth is for validation."""
    shards, index = folder / "shards", folder / "index"
    shards.mkdir(parents=True)
    index.mkdir()
    made = [_image(number) for number in range(images)]
    listed = []
    entries: dict[str, list[tuple[int, ...]]] = {split: [] for split in SPLITS}
    for first in range(0, images, per_shard):
        path = shards / f"{first // per_shard:05d}.tar"
        with TarWriter(path) as tar:
            for image in made[first : first + per_shard]:
                key, facts = image["key"], {k: v for k, v in image.items() if k not in ("jpeg", "txt", "split")}
                jpg = tar.add(f"{key}.jpg", image["jpeg"])
                text = tar.add(f"{key}.json", json.dumps(facts, sort_keys=True, ensure_ascii=False).encode())
                tar.add(f"{key}.txt", image["txt"].encode())
                entries[image["split"]] += [(len(listed), k, *jpg, *text) for k in range(len(image["rows"]))]
        listed.append({"name": path.name, "bytes": tar.size, "sha256": tar.sha256})
    for split, places in entries.items():
        np.save(index / f"{split}.npy", np.array(places, ENTRY))
    (index / INDEX).write_text(json.dumps({"shards": listed, "counts": {}, "splits": {}}))
    return ShardFolders(shards, index, made)


def _image(number: int) -> dict[str, Any]:
    width, height = SIZES[number % len(SIZES)]
    rows = _questions(number) if number % 4 == 3 else [_row(10 * number, caption=f"Bild {number}: ein Fluß")]
    return {
        "key": image_key(number), "url": f"https://example.org/{number}.jpg", "sha256": f"{number:064x}",
        "width": width, "height": height, "original_width": 2 * width, "original_height": 2 * height, "rows": rows,
        "jpeg": encoded(scenery(width, height, number), quality=95),
        "txt": rows[0]["caption"] or f"{rows[0]['question']}\n{rows[0]['answer']}",
        "split": "validation" if number % 6 == 5 else "train",
    }  # fmt: skip


def _questions(number: int) -> list[dict[str, Any]]:
    return [
        _row(10 * number + k, question=f"What is {k} in {number}?", answer=f"{k}", templated=k == 2) for k in range(3)
    ]


def _row(row: int, **texts: Any) -> dict[str, Any]:
    return {"row": row, "caption": "", "question": "", "answer": "", "templated": False, "extra": ""} | texts
