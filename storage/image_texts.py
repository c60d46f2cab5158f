"""The texts of an image-text index, without their images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storage.shard_index import LocalBytes, SplitIndex

Text = tuple[str, str]
"""Question, empty for a caption, and text."""


def read_rows(shards: Path, index: Path, split: str, most: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a split in the order of the index, each with its image's `key`; of more than `most` some,
    evenly spaced.
    """
    entries, source = SplitIndex(index, split), LocalBytes(shards)
    entries.check_sizes(source)
    count = min(len(entries), most or len(entries))
    for position in (k * len(entries) // count for k in range(count)):
        entry = entries[position]
        facts = json.loads(source.read(entries.shards[entry.shard], entry.json_offset, entry.json_size))
        yield facts["rows"][entry.text] | {"key": facts["key"]}


def read_texts(shards: Path, index: Path, split: str, most: int | None = None) -> list[Text]:
    """Return the texts of the rows that `read_rows` yields."""
    rows = read_rows(shards, index, split, most)
    return [(row["question"], row["answer"] if row["question"] else row["caption"]) for row in rows]
