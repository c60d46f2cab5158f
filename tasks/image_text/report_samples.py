"""Which images and duplicates a report shows: keyed samples, read at the offsets that the index and the tables say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from storage.sampling import KeyedPermutation
from storage.shard_index import INDEX, SPLITS
from tasks.image_text.index import EXCLUDED
from tasks.image_text.shard_tables import ShardTables, first_rows, image_numbers, read_part

SEED = 0
TRIES = 20
"""Entries looked at per image shown, where an image has many texts."""


@dataclass(frozen=True, slots=True)
class Sample:
    """An image of the index with one of its texts."""

    jpeg: bytes
    split: str
    text: Mapping[str, Any]
    texts: int
    """How many texts the image has."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A duplicate and the image that stays in its stead."""

    stays: int
    out: int
    jpegs: tuple[bytes, bytes]
    reason: str
    distance: int


def choose_samples(shards: Path, index: Path, count: int) -> list[Sample]:
    """Return a keyed choice of so many different images of all splits, or of as many as there are."""
    tars = [shards / shard["name"] for shard in json.loads((index / INDEX).read_bytes())["shards"]]
    parts = [np.load(index / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in SPLITS]
    ends = np.cumsum([len(part) for part in parts])
    order = KeyedPermutation(int(ends[-1]), SEED, 0)
    chosen: dict[tuple[int, int], tuple[str, Any]] = {}
    for place in range(min(len(order), TRIES * count)):
        position = order[place]
        side = int(np.searchsorted(ends, position, side="right"))
        entry = parts[side][position - ends[side] + len(parts[side])]
        chosen.setdefault((int(entry["shard"]), int(entry["jpg_offset"])), (SPLITS[side], entry))
        if len(chosen) == count:
            break
    return [_sample(tars[int(entry["shard"])], entry, split) for split, entry in chosen.values()]


def _sample(tar: Path, entry: Any, split: str) -> Sample:
    facts = json.loads(read_part(tar, int(entry["json_offset"]), int(entry["json_size"])))
    jpeg = read_part(tar, int(entry["jpg_offset"]), int(entry["jpg_size"]))
    return Sample(jpeg, split, facts["rows"][int(entry["text"])], len(facts["rows"]))


def choose_pairs(tables: ShardTables, index: Path, count: int) -> list[Pair]:
    """Return duplicates with what they duplicate, in turn of every reason and distance that occurs."""
    excluded = pq.read_table(index / EXCLUDED, columns=["image", "reason", "of", "distance"])
    rows = [excluded.slice(position, 1).to_pylist()[0] for position in _in_turn(excluded, count)]
    jpegs = _read_images(tables, {number for row in rows for number in (row["image"], int(row["of"]))})
    return [
        Pair(int(r["of"]), r["image"], (jpegs[int(r["of"])], jpegs[r["image"]]), r["reason"], r["distance"])
        for r in rows
    ]  # fmt: skip


def _in_turn(excluded: pa.Table, count: int) -> list[int]:
    reasons = excluded["reason"].combine_chunks().dictionary_encode()
    kinds = reasons.indices.to_numpy() * 256 + excluded["distance"].to_numpy().astype(np.int64)
    turns: list[tuple[int, int, int]] = []
    for kind in np.unique(kinds):
        members = np.flatnonzero(kinds == kind)
        order = KeyedPermutation(len(members), SEED, 0)
        turns += [(turn, int(kind), int(members[order[turn]])) for turn in range(min(count, len(members)))]
    chosen = sorted(turns)[:count]
    return [position for _, _, position in sorted(chosen, key=lambda turn: turn[1:])]


def _read_images(tables: ShardTables, wanted: Iterable[int]) -> dict[int, bytes]:
    numbers: NDArray[np.int64] = np.array(sorted(wanted), np.int64)
    found: dict[int, bytes] = {}
    for position, table in tables.decided(["jpg_offset", "jpg_size"]):
        here = table.filter(first_rows(table) & np.isin(image_numbers(table), numbers))
        for row in here.to_pylist():
            tar = tables.folder / tables.shards[position].tar
            found[row["image"]] = read_part(tar, row["jpg_offset"], row["jpg_size"])
    return found
