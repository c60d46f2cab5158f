"""The texts of an image-text index, without their images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from storage.files import write_atomic

Text = tuple[str, str]
"""Question, empty for a caption, and text."""


def read_texts(shards: Path, index: Path, split: str, most: int | None = None) -> list[Text]:
    """Return the texts of a split in the order of the index; of more than `most` some, evenly spaced."""
    from storage.shard_index import LocalBytes, SplitIndex

    entries, source = SplitIndex(index, split), LocalBytes(shards)
    entries.check_sizes(source)
    found = []
    count = min(len(entries), most or len(entries))
    for position in (k * len(entries) // count for k in range(count)):
        entry = entries[position]
        facts = json.loads(source.read(entries.shards[entry.shard], entry.json_offset, entry.json_size))
        row = facts["rows"][entry.text]
        found.append((row["question"], row["answer"] if row["question"] else row["caption"]))
    return found


def write_texts(path: Path, parts: Mapping[str, Sequence[Text]]) -> None:
    """Write the texts of several parts as one file."""
    write_atomic(path, json.dumps(parts, ensure_ascii=False))


def load_texts(path: Path, part: str) -> list[Text]:
    """Read a part of what `write_texts` wrote."""
    return [(question, text) for question, text in json.loads(path.read_text())[part]]
