"""The reader of parquet lists: PixMo and whatever else names its columns in the configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.image_text import Columns
from tasks.image_text.row import URL, Dropped, Moved, Row, Rows, drop

BATCH = 2048
SHA256 = re.compile(r"[0-9a-f]{64}")
TAGS = re.compile(r"\[(?:USER|ASSISTANT)\]", re.IGNORECASE)


def read_parquet(path: Path, columns: Columns, moved: Moved) -> Rows:
    """Read the named columns of a parquet file, batch by batch."""
    named = (columns.url, columns.caption, columns.question, columns.answer, columns.sha256)
    texts = [name for name in named if name]
    try:
        with pq.ParquetFile(path) as file:
            _check(path.name, file.schema_arrow, texts, columns.keep)
            for record in _records(path, file, list(dict.fromkeys((*texts, *columns.keep))), moved):
                yield _of_record(record, columns)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path.name} is no readable parquet file ({reason}); fetch it again") from None


def _check(name: str, schema: pa.Schema, texts: list[str], keep: tuple[str, ...]) -> None:
    """Refuse a file without the columns that the configuration names, or with lists where texts should be."""
    if missing := [column for column in dict.fromkeys((*texts, *keep)) if column not in schema.names]:
        raise ValueError(
            f"{name} has no column {', '.join(missing)}; it has {', '.join(schema.names)}: correct source.columns"
        )
    if nested := [column for column in texts if pa.types.is_nested(schema.field(column).type)]:
        raise ValueError(
            f"{name}: column {nested[0]} holds {schema.field(nested[0]).type}, not text; name another in "
            "source.columns, where only keep takes such"
        )


def _records(path: Path, file: pq.ParquetFile, names: list[str], moved: Moved) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file; how many of its bytes they were is told after each batch."""
    size, total, done = path.stat().st_size, file.metadata.num_rows, 0
    for batch in file.iter_batches(BATCH, columns=names):
        yield from batch.to_pylist()
        done += batch.num_rows
        moved(size * done // total)


def _of_record(record: Mapping[str, Any], columns: Columns) -> Row | Dropped:
    url, caption, question, answer, sha256 = (
        _text(record[name]) if name else ""
        for name in (columns.url, columns.caption, columns.question, columns.answer, columns.sha256)
    )
    question, answer, sha256 = TAGS.sub("", question).strip(), TAGS.sub("", answer).strip(), sha256.lower()
    shown = " ".join(filter(None, (url, caption, question, answer)))
    if not url.lower().startswith(URL):
        return drop("bad_url", shown)
    if not (question and answer):
        question = answer = ""
    if not caption and not question:
        return drop("no_text", shown)
    if sha256 and not SHA256.fullmatch(sha256):
        return drop("bad_sha256", f"{sha256} {shown}")
    try:
        extra = _extra({name: record[name] for name in columns.keep})
    except ValueError:
        return drop("bad_extra", shown)
    return Row(url, "", sha256, caption, question, answer, False, extra)


def _text(value: Any) -> str:
    """Return a column's value as text; a count of 0 is an answer, no value is none."""
    return "" if value is None else str(value).strip()


def _extra(kept: dict[str, Any]) -> str:
    """Return kept columns as JSON; `ValueError` for what JSON has no number for."""
    return json.dumps(kept, sort_keys=True, ensure_ascii=False, allow_nan=False, default=str) if kept else ""
