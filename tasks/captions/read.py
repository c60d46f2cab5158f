"""Read captions of weather from CSV files: one text per row, or a JSON list of regions and texts per date."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from storage.delimited import DELIMITERS, SHOWN, Delimited, read_delimited
from storage.files import require_readable

NO_TEXT = "no text (an empty cell, or JSON without a description)"

JSON_TEXT_KEYS = ("description", "descrpition")
"""Keys of the text inside JSON; the second is how the published files spell it."""


@dataclass(frozen=True, slots=True)
class Caption:
    """What is said about a region, or about no region in particular, on one UTC day."""

    date: date
    region: str | None
    text: str
    """Runs of white space, line ends included, are one space."""
    source: str
    """`file:line` of the first line of the row."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Names that a column may go by, the first that is there is taken; case and underscores do not matter."""

    date: tuple[str, ...] = ("date", "day")
    text: tuple[str, ...] = ("event description", "description", "caption", "text")
    region: tuple[str, ...] = ("location", "region")


@dataclass(frozen=True, slots=True)
class Captions:
    """The captions of all files and what was left out."""

    captions: list[Caption]
    unusable: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> `file:line` of every row, or part of a row, that is not used for it."""
    duplicates: int = 0
    """Repetitions of a date, region and text that were dropped."""
    notes: Sequence[str] = ()
    """How files were read that are not plain CSVs."""

    def report(self, examples: int = 3) -> list[str]:
        """Return a line on each reason for leaving something out, with the first places."""
        lines = [
            f"{len(places)} not used, {reason}: {', '.join(places[:examples])}"
            + (", ..." if len(places) > examples else "")
            for reason, places in sorted(self.unusable.items())
        ]
        return [*self.notes, *lines] + ([f"{self.duplicates} duplicates dropped"] if self.duplicates else [])


class _UnusableError(Exception):
    """A row, or a part of it, that gives no caption; its message is the reason."""


def read_captions(paths: Sequence[Path], columns: Columns | None = None) -> Captions:
    """Read caption files in the given order.

    Args:
        paths: CSV files in UTF-8, or in UTF-16 with a byte order mark; commas, semicolons, tabs or bars part columns.
        columns: other names for the columns.

    Raises:
        ValueError: a file has no header, no date column, no text column, an open quote, or is no text.
    """
    kept: dict[tuple[date, str | None, str], Caption] = {}
    unusable: dict[str, list[str]] = {}
    notes: list[str] = []
    total = 0
    for path in paths:
        table = _open(path, columns or Columns())
        if table.delimiter != ",":
            notes.append(f"{path}: columns are parted by {DELIMITERS.get(table.delimiter, repr(table.delimiter))}")
        for found in _read_file(path, table, columns or Columns()):
            if isinstance(found, Caption):
                total += 1
                kept.setdefault((found.date, found.region, found.text), found)
            else:
                reason, source = found
                unusable.setdefault(reason, []).append(source)
    return Captions(list(kept.values()), unusable, total - len(kept), notes)


def _open(path: Path, columns: Columns) -> Delimited:
    """Read a file's table; names in its header are simplified like those that are looked for."""
    require_readable(path)
    wanted = [set(_lowered(names)) for names in (columns.date, columns.text)]
    try:
        table = read_delimited(path, lambda header: all(names & set(_lowered(header)) for names in wanted))
    except ValueError as error:
        raise ValueError(f"{path} {error}; give a CSV in UTF-8 whose header names a date and a text column") from None
    return replace(table, header=_lowered(table.header))


def _read_file(path: Path, table: Delimited, columns: Columns) -> Iterator[Caption | tuple[str, str]]:
    """Yield captions, and (reason, source) for what gives none."""
    names = table.header
    date_at, text_at = (_column(path, table, kind, getattr(columns, kind)) for kind in ("date", "text"))
    region_at = _place(path, table, columns.region)
    for line, row in table.rows:
        if not any(cell.strip() for cell in row):
            continue
        source = f"{path}:{line}"
        try:
            if any(cell.strip() for cell in row[len(names) :]):
                raise _UnusableError("more cells than the header has (quote texts that hold commas)")
            cells = row + [""] * (len(names) - len(row))
            day = _day(cells[date_at])
            found = list(_texts(cells[text_at]))
        except _UnusableError as reason:
            yield f"{reason}", source
            continue
        place = _clean(cells[region_at]) if region_at is not None else ""
        for region, text in found:
            if text:
                yield Caption(day, region or place or None, text, source)
            else:
                yield NO_TEXT, source


def _column(path: Path, table: Delimited, kind: str, wanted: tuple[str, ...]) -> int:
    place = _place(path, table, wanted)
    if place is None:
        there = ", ".join(repr(name) for name in table.header)[:SHOWN]
        raise ValueError(
            f"{path} has no {kind} column: its header is {there}; rename one to {wanted[0]!r} or configure the name"
        )
    return place


def _place(path: Path, table: Delimited, wanted: tuple[str, ...]) -> int | None:
    """Return the place of the first of these names that the header has."""
    name = next((name for name in _lowered(wanted) if name in table.header), None)
    try:
        return None if name is None else table.column(name)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None


def _lowered(names: Sequence[str]) -> list[str]:
    return [name.strip().lower().replace("_", " ") for name in names]


def _day(cell: str) -> date:
    """The UTC date of `2024-04-01`, `2024/04/01` or a time such as `2024-04-01T06:00+02:00`."""
    try:
        time = datetime.fromisoformat(cell.strip().replace("/", "-"))
        return (time.astimezone(UTC) if time.tzinfo else time).date()
    except (ValueError, OverflowError):
        raise _UnusableError("bad date (write it as 2024-04-01)") from None


def _texts(cell: str) -> Iterator[tuple[str, str]]:
    """Yield (region, text) of a text cell; the region is empty where none is given, the text where there is none."""
    if not cell.lstrip().startswith(("[", "{")):
        yield "", _clean(cell)
        return
    try:
        items = json.loads(cell)
    except (ValueError, RecursionError):
        raise _UnusableError("broken JSON") from None
    items = items if isinstance(items, list) else [items]
    if not items:
        raise _UnusableError(NO_TEXT)
    yield from map(_item, items)


def _item(item: Any) -> tuple[str, str]:
    if not isinstance(item, dict):
        return "", ""
    text = next((item[key] for key in JSON_TEXT_KEYS if isinstance(item.get(key), str)), "")
    region = item.get("region")
    return _clean(region) if isinstance(region, str) else "", _clean(text)


def _clean(text: str) -> str:
    return " ".join(text.split())
