"""The stage that decides which stored images are used for what, and writes where they lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from configs.image_text import Duplicates, ImageSplits
from storage.assets import Asset
from storage.files import atomic_path, write_atomic
from storage.hashing import canonical_json
from storage.shard_index import ENTRY, INDEX, SPLITS
from tasks.image_text.duplicates import REASONS, Verdicts, judge_duplicates
from tasks.image_text.image_splits import check_sides, draw_sides
from tasks.image_text.shard_tables import ShardTables, first_rows, image_numbers
from tasks.stage import Job, StageResult, stage

if TYPE_CHECKING:
    import pyarrow as pa

EXCLUDED = "excluded.parquet"
MEMBERS = ("jpg_offset", "jpg_size", "json_offset", "json_size")
DIGEST_WORDS = 2  # 128 of the 256 bits of an image's SHA-256


@dataclass(slots=True)
class Images:
    """The stored images in the order of their shards, about 40 bytes each."""

    number: NDArray[np.int64]
    shard: NDArray[np.uint32]
    texts: NDArray[np.uint32]
    digest: NDArray[np.uint64]
    """The first words of the SHA-256 of their bytes, (N, 2)."""
    phash: NDArray[np.uint64]
    side: NDArray[np.uint8]
    """The side that each one drew."""


@stage("image_text_index")
def image_text_index(job: Job, *, shards: Asset, duplicates: Duplicates, splits: ImageSplits) -> StageResult:
    """Write `train.npy`, `validation.npy`, `test.npy`, `index.json` and `excluded.parquet`.

    An entry is one text of an image; they are sorted by image. All texts of an image are on one side, and so are
    images of equal bytes and, as `duplicates.distance` has it, of nearly equal looks.
    """
    tables = ShardTables(shards.folder)
    images, statuses = read_images(tables, splits)
    job.message(f"{len(images.number):,} of {statuses.total():,} listed images are stored; looking for duplicates")
    verdicts = judge_duplicates(images.digest, images.phash, images.side, duplicates)
    entries, templated = place_entries(tables, images, verdicts)
    check_sides(images.digest[verdicts.stays], verdicts.sides[verdicts.stays])
    for name, part in zip(SPLITS, entries, strict=True):
        with atomic_path(job.folder / f"{name}.npy") as path:
            np.save(path, part, allow_pickle=False)
    write_excluded(tables, images, verdicts, job.folder / EXCLUDED)
    counts = _count(images, verdicts, statuses, templated)
    sides = {
        name: {"images": int((verdicts.stays & (verdicts.sides == side)).sum()), "texts": len(entries[side])}
        for side, name in enumerate(SPLITS)
    }
    files = [{"name": s.tar, "bytes": s.tar_bytes, "sha256": s.tar_sha256} for s in tables.shards]
    write_atomic(job.folder / INDEX, canonical_json({"shards": files, "counts": counts, "splits": sides}))
    wanted = {"train": 1.0, "validation": splits.validation_share, "test": splits.test_share}
    _warn(job, counts, [name for name in SPLITS if not sides[name]["images"] and wanted[name]])
    facts = {f"{name}_{what}": n for name, numbers in sides.items() for what, n in numbers.items()}
    return StageResult(counts | facts, metrics={"share_stored": round(counts["stored"] / counts["images"], 4)})


def read_images(tables: ShardTables, splits: ImageSplits) -> tuple[Images, Counter[str]]:
    """Return the stored images, and how many images have which status; `ValueError` when none is stored."""
    from storage.shard_set import OK  # plans do without pyarrow

    parts: list[Images] = []
    statuses: Counter[str] = Counter()
    for position, table in tables.decided(["status", "sha256", "phash"]):
        images = table.filter(first_rows(table))
        statuses.update(images["status"].to_pylist())
        parts.append(_stored(position, _only_stored(table), splits))
    if not statuses[OK]:
        reasons = ", ".join(f"{status} {count:,}" for status, count in statuses.most_common()) or "there are no shards"
        raise ValueError(
            f"no image is stored of {statuses.total():,} listed ones ({reasons}); check the addresses in the lists and "
            "this machine's network, then raise retry.rounds by 1 and run again"
        )
    return Images(*(np.concatenate([getattr(p, name) for p in parts]) for name in Images.__slots__)), statuses


def _only_stored(table: pa.Table) -> pa.Table:
    import pyarrow.compute as pc

    from storage.shard_set import OK

    return table.filter(pc.equal(table["status"], OK))


def _stored(position: int, rows: pa.Table, splits: ImageSplits) -> Images:
    starts = np.flatnonzero(first_rows(rows))
    firsts = rows.take(starts)
    hashes: list[str] = firsts["sha256"].to_pylist()
    words = np.frombuffer(bytes.fromhex("".join(hashes)), ">u8").reshape(-1, 4)[:, :DIGEST_WORDS]
    return Images(
        number=image_numbers(firsts),
        shard=np.full(len(starts), position, np.uint32),
        texts=np.diff(starts, append=rows.num_rows).astype(np.uint32),
        digest=words.astype(np.uint64),
        phash=firsts["phash"].to_numpy(),
        side=draw_sides(hashes, splits),
    )


def place_entries(tables: ShardTables, images: Images, verdicts: Verdicts) -> tuple[list[NDArray[Any]], int]:
    """Return the entries of each split, sorted by image and row, and how many of them are of templated texts."""
    begin = _begin(images, verdicts)
    lengths = [int(images.texts[verdicts.stays & (verdicts.sides == side)].sum()) for side in range(len(SPLITS))]
    entries = [np.zeros(length, ENTRY) for length in lengths]
    templated = 0
    for position, table in tables.decided(["status", "templated", *MEMBERS]):
        rows = _only_stored(table)
        first = np.searchsorted(images.shard, position)  # images are in the order of their shards
        image = first + np.cumsum(first_rows(rows)) - 1
        text = np.arange(len(image)) - np.flatnonzero(first_rows(rows))[image - first]
        made = _entries(position, rows, text, tables.shards[position].tar_bytes)
        for side, part in enumerate(entries):
            here = verdicts.stays[image] & (verdicts.sides[image] == side)
            part[begin[image[here]] + text[here]] = made[here]
        templated += int(rows["templated"].to_numpy()[verdicts.stays[image]].sum())
    return entries, templated


def _begin(images: Images, verdicts: Verdicts) -> NDArray[np.int64]:
    """Return where the entries of each image that stays begin in its split."""
    begin = np.zeros(len(images.number), np.int64)
    order = np.argsort(images.number, kind="stable")
    for side in range(len(SPLITS)):
        chosen = order[(verdicts.stays & (verdicts.sides == side))[order]]
        texts = images.texts[chosen].astype(np.int64)
        begin[chosen] = np.cumsum(texts) - texts
    return begin


def _entries(position: int, rows: pa.Table, text: NDArray[np.int64], tar_bytes: int) -> NDArray[Any]:
    entries = np.zeros(rows.num_rows, ENTRY)
    entries["shard"], entries["text"] = position, text
    for name in MEMBERS:
        entries[name] = rows[name].to_numpy()
    ends = np.maximum(entries["jpg_offset"] + entries["jpg_size"], entries["json_offset"] + entries["json_size"])
    assert not len(ends) or ends.max() <= tar_bytes, "members lie inside their tar"
    return entries


def write_excluded(tables: ShardTables, images: Images, verdicts: Verdicts, path: Path) -> None:
    """Write which stored images are in no split, why, and for the sake of which other image; sorted by image."""
    import pyarrow as pa

    from storage.shard_set import image_key, parquet_bytes

    out = np.flatnonzero(~verdicts.stays)
    out = out[np.argsort(images.number[out])]
    numbers = images.number[out]
    table = pa.table({
        "image": pa.array(numbers, pa.int64()),
        "key": pa.array([image_key(n) for n in numbers.tolist()], pa.string()),
        "shard": pa.array([tables.shards[s].tar for s in images.shard[out]], pa.string()),
        "reason": pa.array([REASONS[code] for code in verdicts.reason[out]], pa.string()),
        "of": pa.array([image_key(n) for n in images.number[verdicts.of[out]].tolist()], pa.string()),
        "distance": pa.array(verdicts.distance[out], pa.uint8()),
    })  # fmt: skip
    write_atomic(path, parquet_bytes(table))


def _count(images: Images, verdicts: Verdicts, statuses: Counter[str], templated: int) -> dict[str, int]:
    reasons = np.bincount(verdicts.reason, minlength=len(REASONS)).tolist()
    return {
        "images": statuses.total(),
        "stored": len(images.number),
        "indexed": reasons[0],
        **dict(zip(REASONS[1:], reasons[1:], strict=True)),
        "without_texture": int((images.phash == 0).sum()),
        "templated_texts": templated,
    }


def _warn(job: Job, counts: Mapping[str, int], empty: Sequence[str]) -> None:
    """Tell what a person would not expect."""
    if between := counts["dup_two_sides"]:
        job.message(
            f"{between:,} near-duplicates are left out though duplicates.near is 'keep': each is near images of two "
            "splits, and would leak from one to the other"
        )
    if empty:
        job.message(f"no image is in {' and '.join(empty)}; raise its share in splits or the number of images")
