"""One way to read lists of every kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from configs.image_text import Columns
from tasks.image_text.annotations import Annotations, is_annotations
from tasks.image_text.row import Moved, Rows, without_nul
from tasks.image_text.sources import ListFile, is_image
from tasks.image_text.tables import read_parquet
from tasks.image_text.tars import read_tar
from tasks.image_text.text_lists import ORDERS, columns_of, read_captions, read_tsv


class OpenList(NamedTuple):
    """A list and its rows, still to be read."""

    file: ListFile
    rows: Rows
    order: str = ""
    """Of the columns, where they have no names."""


def read_lists(files: Sequence[ListFile], reading: Mapping[str, Any], moved: Moved) -> Iterator[OpenList]:
    """Yield each list, in order; `reading` is what `sources.reading` says of the source."""
    for file, rows, order in _open_lists(files, reading, moved):
        yield OpenList(file, without_nul(rows), order)


def _open_lists(files: Sequence[ListFile], reading: Mapping[str, Any], moved: Moved) -> Iterator[OpenList]:
    match reading["kind"]:
        case "tsv":
            for file in files:
                columns: tuple[str, ...] = tuple(reading.get("columns", ())) or columns_of(file.path, reading["order"])
                yield OpenList(file, read_tsv(file.path, columns, moved), ORDERS.get(columns, ""))
        case "parquet":
            table = Columns.model_validate(reading["columns"])
            yield from (OpenList(file, read_parquet(file.path, table, moved)) for file in files)
        case "webdataset":
            yield from (
                OpenList(file, read_tar(file, reading["caption_field"], reading.get("several_captions", False), moved))
                for file in files
            )
        case "folder":
            images = {file.name: file for file in files if is_image(file)}
            lists = [file for file in files if not is_image(file)]
            annotations = Annotations([file for file in lists if is_annotations(file)], images)
            for file in lists:
                read = (
                    annotations.rows(file, moved) if is_annotations(file) else read_captions(file.path, images, moved)
                )
                yield OpenList(file, read)
        case kind:
            raise AssertionError(f"unknown kind of list {kind}")
