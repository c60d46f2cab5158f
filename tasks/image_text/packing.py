"""The files of a shard: tar, table, and the statistics that commit it. Equal fates give equal bytes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.files import atomic_path, write_atomic
from storage.hashing import canonical_json
from storage.shard_set import OK, REFUSED, SHARD_SCHEMA, Member, TarWriter, image_key, parquet_bytes

NOWHERE = Member(0, 0)
TEXTS = ("row", "caption", "question", "answer", "templated", "extra")
"""What a row of the list says, beside its image."""
KNOWN = ("url", "sha256", "width", "height", "original_width", "original_height")


@dataclass(slots=True)
class Fate:
    """What became of one image: what the shard's table repeats for each of its rows."""

    image: int
    url: str
    status: str = ""
    http_status: int = 0
    detail: str = ""
    bytes: int = 0
    original_width: int = 0
    original_height: int = 0
    width: int = 0
    height: int = 0
    sha256: str = ""
    stored_sha256: str = ""
    phash: int = 0
    jpg: Member = NOWHERE
    json: Member = NOWHERE
    txt: Member = NOWHERE

    @property
    def key(self) -> str:
        """The name of its members."""
        return image_key(self.image)


def write_shard(
    folder: Path,
    name: str,
    identity: str,
    rows: Sequence[Sequence[Mapping[str, Any]]],
    fates: Sequence[Fate],
    jpeg: Callable[[Fate], bytes],
) -> list[str]:
    """Write the three files of a shard and return their names. `rows` are those of each fate's image."""
    tar, table, stats = f"{name}.tar", f"{name}.parquet", f"{name}_stats.json"
    with atomic_path(folder / tar) as temporary, TarWriter(temporary) as writer:
        for texts, fate in zip(rows, fates, strict=True):
            if fate.status == OK:
                _add(writer, texts, fate, jpeg(fate))
    write_atomic(folder / table, parquet_bytes(_table(rows, fates)))
    statuses = Counter(fate.status for fate in fates)
    facts = {
        "identity": identity,
        "count": len(fates),
        "rows": sum(map(len, rows)),
        "successes": statuses[OK],
        "failed_to_resize": sum(statuses[status] for status in REFUSED),
        "failed_to_download": sum(n for status, n in statuses.items() if status not in (OK, *REFUSED)),
        "status_dict": dict(statuses),
        "bytes": sum(fate.bytes for fate in fates),
        "tar_bytes": writer.size,
        "tar_sha256": writer.sha256,
    }
    write_atomic(folder / stats, canonical_json(facts))
    return [tar, table, stats]


def _add(writer: TarWriter, rows: Sequence[Mapping[str, Any]], fate: Fate, jpeg: bytes) -> None:
    known = {name: getattr(fate, name) for name in KNOWN}
    facts = {"key": fate.key, **known, "rows": [{name: row[name] for name in TEXTS} for row in rows]}
    first = rows[0]
    text = first["caption"] or f"{first['question']}\n{first['answer']}"
    fate.jpg = writer.add(f"{fate.key}.jpg", jpeg)
    fate.json = writer.add(f"{fate.key}.json", json.dumps(facts, sort_keys=True, ensure_ascii=False).encode())
    fate.txt = writer.add(f"{fate.key}.txt", text.encode())


def _table(rows: Sequence[Sequence[Mapping[str, Any]]], fates: Sequence[Fate]) -> pa.Table:
    """Return one row per row of the list."""
    repeated = [fate for texts, fate in zip(rows, fates, strict=True) for _ in texts]
    every = [row for texts in rows for row in texts]
    columns: dict[str, list[Any]] = {name: [row[name] for row in every] for name in TEXTS}
    for member in ("jpg", "txt", "json"):
        columns |= {
            f"{member}_{part}": [getattr(getattr(f, member), part) for f in repeated] for part in Member._fields
        }
    for name in SHARD_SCHEMA.names:
        if name not in columns:
            columns[name] = [getattr(fate, name) for fate in repeated]
    return pa.table({name: columns[name] for name in SHARD_SCHEMA.names}, schema=SHARD_SCHEMA)
