"""Tables in text files as people have them: UTF-8 or, by its mark, UTF-16, with commas or something else in between."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from storage.files import unreadable

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
"""What may part columns, and what it is called; the first that fits is taken."""
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
"""Byte order marks, and what they say; that of UTF-32 begins like that of UTF-16."""

SHOWN = 200
"""Characters of a row or a header that a message shows."""

csv.field_size_limit(2**31 - 1)  # of the process; the files are in memory anyway

Row = tuple[int, list[str]]
"""Number of a row's first line, and its cells."""


@dataclass(frozen=True, slots=True)
class Delimited:
    """A table with a header; blank lines are left out."""

    delimiter: str
    header: list[str]
    """Names without surrounding white space; empty ones at the end are left out."""
    rows: list[Row]

    def column(self, name: str) -> int:
        """Return the place of a column; `ValueError` where its name stands twice."""
        if self.header.count(name) > 1:
            raise ValueError(f"has the column {name} twice; keep one of them")
        return self.header.index(name)


def read_text(path: Path) -> str:
    """Return the text of a file; `ValueError` (what is wrong, no path) unless it is UTF-8, or UTF-16 with a mark."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(unreadable(error)) from None
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"is no text in {encoding.removesuffix('-sig').upper()} (line {line}); save it in UTF-8"
        ) from None
    if "\0" in text:
        raise ValueError("holds NUL characters, as UTF-16 without a byte order mark does; save it in UTF-8")
    return text


def lines_of(text: str) -> list[str]:
    r"""Return the lines of a text with their ends, which are \n, \r\n or \r alone."""
    return list(io.StringIO(text, newline=""))


def read_rows(text: str, delimiter: str = ",") -> Iterator[Row]:
    """Yield the rows of a text, blank ones included; `ValueError` where a quote is open, with the line of it."""
    lines = lines_of(text)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    line = 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            ends = "end of data" in str(error)
            told = _open(lines, line, delimiter) if ends else _closed_early(line, reader.line_num)
            raise ValueError(told) from None
        if row is None:
            return
        yield line, row
        line = reader.line_num + 1


def _open(lines: list[str], first: int, delimiter: str) -> str:
    """Say where the quote opens that swallows all lines from somewhere in the row that begins in line `first`."""
    *_, row = csv.reader(lines[first - 1 :], delimiter=delimiter)
    opened = len(lines) - max(1, len(lines_of(row[-1]))) + 1
    return f"line {opened} opens a quote that is never closed; close it, or write quotes in texts twice"


def _closed_early(first: int, last: int) -> str:
    where = f"line {last}" if last == first else f"line {last}, in a row that a quote in line {first} holds together,"
    return f"{where} has text after a closing quote; write quotes in texts twice, or close one that is open"


def read_delimited(path: Path, complete: Callable[[list[str]], bool]) -> Delimited:
    """Read a table with a header.

    Args:
        path: the file.
        complete: whether a header has what is needed; it decides what parts the columns.

    Raises:
        ValueError: what is wrong, without the path: no text, no rows, or a quote that is open.
    """
    text = read_text(path)
    first, _, rest = text.partition("\n")
    if first.strip().lower()[:4] == "sep=" and len(first.strip()) == 5:  # how Excel names the delimiter
        delimiter, text = first.strip()[4], "\n" + rest
    else:
        delimiter = _delimiter(text, complete)
    rows = [row for row in read_rows(text, delimiter) if row[1]]
    start = next((place for place, (_, cells) in enumerate(rows) if any(cell.strip() for cell in cells)), None)
    if start is None:
        raise ValueError("has no rows")
    header = [cell.strip() for cell in rows[start][1]]
    while not header[-1]:
        header.pop()
    return Delimited(delimiter, header, rows[start + 1 :])


def _delimiter(text: str, complete: Callable[[list[str]], bool]) -> str:
    """Return what parts the columns: what makes the header complete, or else most columns of it."""
    lines = lines_of(text)
    headers = {delimiter: _header(lines, delimiter) for delimiter in DELIMITERS}
    fitting = (delimiter for delimiter, header in headers.items() if complete(header))
    return next(fitting, max(headers, key=lambda delimiter: len(headers[delimiter])))


def _header(lines: list[str], delimiter: str) -> list[str]:
    rows = csv.reader(lines, delimiter=delimiter)
    return next(([cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)), [])
