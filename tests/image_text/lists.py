"""Small lists of images and texts, and what the stage makes of them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.image_text import Columns, ParquetLists, Questions, Selection, Source, TsvLists
from storage.assets import Asset, AssetStore
from tasks.image_text.rows import Whereabouts, image_text_rows
from tasks.image_text.sources import list_names, reading, source_files
from tasks.progress import Silent
from tasks.session import Reporter, Session
from tasks.stage import raw_input


def read(
    root: Path, source: Source, images_per_shard: int = 100, reporter: Reporter | None = None, **options: Any
) -> Asset:
    """Run the stage over a source; assets lie below `root`."""
    with Session(AssetStore(root / "assets"), reporter or Silent()).active():
        raw = raw_input("lists", source_files(source))
        return image_text_rows(
            raw=raw,
            names=list_names(raw, source),
            reading=reading(source),
            whereabouts=Whereabouts(source=source),
            images_per_shard=images_per_shard,
            **{"select": Selection(), "questions": Questions()} | options,
        )


def rows(asset: Asset) -> list[dict[str, Any]]:
    """Return all rows, shard after shard."""
    paths = sorted((asset.folder / "lists").glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def dropped(asset: Asset) -> dict[int, str]:
    """Return the reasons of dropped rows, by row."""
    return {row["row"]: row["reason"] for row in pq.read_table(asset.folder / "dropped.parquet").to_pylist()}


def facts(asset: Asset) -> dict[str, Any]:
    """Return the content of `rows.json`."""
    return json.loads((asset.folder / "rows.json").read_bytes())


def tsv(path: Path, *lines: str | bytes, end: bytes = b"\n", **settings: Any) -> TsvLists:
    """Write a list and return the source that reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join((line.encode() if isinstance(line, str) else line) + end for line in lines))
    return TsvLists(paths=(str(path),), **settings)


def numbered(count: int, begin: int = 0) -> list[str]:
    """Return lines of distinct URLs and captions."""
    return [f"http://a.org/{n}.jpg\tcaption {n}" for n in range(begin, begin + count)]


def parquet(path: Path, columns: Columns, table: Mapping[str, Any]) -> ParquetLists:
    """Write a table and return the source that reads it."""
    pq.write_table(pa.table(table), path)
    return ParquetLists(paths=(str(path),), columns=columns)


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    """Write a tar, its members in the given order."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
