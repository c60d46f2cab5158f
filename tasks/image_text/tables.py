"""The reader of parquet lists: PixMo and whatever else names its columns in the configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.image_text import Columns
from storage.files import require_readable
from tasks.image_text.row import URL, Dropped, Moved, Row, Rows, as_text, drop

BATCH = 2048
SHA256 = re.compile(r"[0-9a-f]{64}")
TAGS = re.compile(r"\[(?:USER|ASSISTANT)\]", re.IGNORECASE)


def read_parquet(path: Path, columns: Columns, moved: Moved) -> Rows:
    """Read the named columns of a parquet file, batch by batch."""
    named = (columns.url, columns.caption, columns.question, columns.answer, columns.sha256)
    names = list(dict.fromkeys((*filter(None, named), *columns.asked_about(), *columns.keep)))
    require_readable(path)
    try:
        with pq.ParquetFile(path) as file:
            _check(path.name, file.schema_arrow, names, columns)
            for record in _records(path, file, names, moved):
                for caption in _captions(record, columns):
                    yield _of_record(record, caption, columns)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path.name} is no readable parquet file ({reason}); fetch it again") from None


def _check(name: str, schema: pa.Schema, names: list[str], columns: Columns) -> None:
    """Refuse a file without the columns that the configuration names, or with something else than text in them."""
    if missing := [column for column in names if column not in schema.names]:
        raise ValueError(
            f"{name} has no column {', '.join(missing)}; it has {', '.join(schema.names)}: correct source.columns"
        )
    if twice := [column for column in names if schema.names.count(column) > 1]:
        raise ValueError(
            f"{name} has {schema.names.count(twice[0])} columns {twice[0]}, and nobody knows which one is meant; give "
            "one of them another name"
        )
    for role in ("url", "caption", "question", "answer", "sha256"):
        if column := getattr(columns, role):
            _check_text(name, column, schema.field(column).type, several=role == "caption" and columns.several_captions)
    for column in columns.asked_about():
        _check_text(name, column, schema.field(column).type, several=False)
    if odd := [column for column in columns.keep if not _is_json(schema.field(column).type)]:
        raise ValueError(
            f"{name}: column {odd[0]} holds {schema.field(odd[0]).type}, which JSON has no word for; take it out of "
            "source.columns.keep"
        )


def _check_text(name: str, column: str, kind: pa.DataType, *, several: bool) -> None:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    lists = _is_list(kind)
    if several and not lists:
        raise ValueError(f"{name}: column {column} holds {kind}, not lists; leave out source.columns.several_captions")
    if several and _is_text(kind.value_type):
        return
    if lists and _is_text(kind.value_type) and not several:
        raise ValueError(
            f"{name}: column {column} holds {kind}, not text; set source.columns.several_captions where it is a list "
            "of captions, or name another column"
        )
    if not _is_text(kind) or several:
        raise ValueError(
            f"{name}: column {column} holds {kind}, not text; name another in "
            "source.columns, where only keep takes such"
        )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    """Whether values are text, bytes that may be text, numbers (of an answer that is a count), or absent."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = ("string", "large_string", "string_view", "integer", "floating", "decimal", "null")
    return _is_bytes(kind) or any(getattr(pa.types, f"is_{test}")(kind) for test in tests)


def _is_bytes(kind: pa.DataType) -> bool:
    tests = ("binary", "large_binary", "fixed_size_binary", "binary_view")
    return any(getattr(pa.types, f"is_{test}")(kind) for test in tests)


def _is_json(kind: pa.DataType) -> bool:
    """Whether values of a column that travels along can be written as JSON: bytes as the text that they are."""
    if _is_list(kind):
        return _is_json(kind.value_type)
    if pa.types.is_struct(kind):
        return all(_is_json(kind.field(n).type) for n in range(kind.num_fields))
    if pa.types.is_map(kind):
        return _is_json(kind.key_type) and _is_json(kind.item_type)
    tests = ("boolean", "date", "timestamp", "time")
    return _is_text(kind) or any(getattr(pa.types, f"is_{test}")(kind) for test in tests)


def _records(path: Path, file: pq.ParquetFile, names: list[str], moved: Moved) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file; how many of its bytes they were is told after each batch."""
    size, total, done = path.stat().st_size, file.metadata.num_rows, 0
    for batch in file.iter_batches(BATCH, columns=names):
        columns = [batch[name] for name in names]  # a column whose name has a point brings others along
        yield from pa.RecordBatch.from_arrays(columns, names).to_pylist()
        done += batch.num_rows
        moved(size * done // total)


def _captions(record: Mapping[str, Any], columns: Columns) -> Sequence[Any]:
    """Return the captions of a row, of which there is one in most lists; none makes one row without text."""
    if columns.caption is None:
        return ("",)
    value = record[columns.caption]
    return (value or ("",)) if columns.several_captions else (value,)


def _of_record(record: Mapping[str, Any], caption: Any, columns: Columns) -> Row | Dropped:
    values = [record[name] if name else "" for name in (columns.url, columns.question, columns.answer)]
    try:
        url, question, answer, caption = (_text(value) for value in (*values, caption))
        question = question or _made(record, columns)
    except UnicodeDecodeError:
        return drop("not_utf8", " ".join(map(str, values)))
    sha256 = _digest(record[columns.sha256]) if columns.sha256 else ""
    question, answer = TAGS.sub("", question).strip(), TAGS.sub("", answer).strip()
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


def _made(record: Mapping[str, Any], columns: Columns) -> str:
    """Return the question that is made of other columns; none where one of them is empty."""
    values = {name: _text(record[name]) for name in columns.asked_about()}
    question = columns.question_from or ""
    for name, value in values.items():
        question = question.replace(f"{{{name}}}", value)
    return question if all(values.values()) else ""


def _text(value: Any) -> str:
    """Return a column's value as text; a count of 0 is an answer, no value is none."""
    return value.strip() if type(value) is str and value.isascii() and "\0" not in value else as_text(value)


def _digest(value: Any) -> str:
    """Return a SHA-256 in hexadecimal digits, be it written so or as its 32 bytes."""
    if isinstance(value, bytes):
        return value.hex() if len(value) == 32 else value.decode("latin-1").strip().lower()
    return as_text(value).lower()


def _extra(kept: dict[str, Any]) -> str:
    """Return kept columns as JSON; `ValueError` for what JSON has no number for, or bytes that are no text."""
    return json.dumps(kept, sort_keys=True, ensure_ascii=False, allow_nan=False, default=_plain) if kept else ""


def _plain(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
