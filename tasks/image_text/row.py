"""Input rows as readers yield them: usable, or dropped for a reason."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

URL = ("http://", "https://")
TEXT_SHOWN = 200
AROUND = re.compile(r"^[\s\0\u200b\u2060]+|[\s\0\u200b\u2060]+\Z")
"""White space, padding, and characters that have no width."""
EXACT = 2**53
"""Below it every whole number is a float."""


class Row(NamedTuple):
    """One input row that can be used, in the order of a list's columns; what is absent is empty."""

    url: str = ""
    place: str = ""
    sha256: str = ""
    caption: str = ""
    question: str = ""
    answer: str = ""
    templated: bool = False
    extra: str = ""


class Dropped(NamedTuple):
    """One input row that cannot be used, with the reason."""

    reason: str
    text: str


Rows = Iterator[Row | Dropped]
Moved = Callable[[int], None]
"""Told how many bytes of a file have been read."""


def drop(reason: str, text: str) -> Dropped:
    """Return a dropped row with the beginning of its text."""
    return Dropped(reason, text[:TEXT_SHOWN].encode(errors="replace").decode())


def clean(text: str) -> str:
    """Return a text without byte order marks, and without white space and padding with NUL around it."""
    return AROUND.sub("", text.replace("\ufeff", ""))


def as_text(value: Any) -> str:
    """Return a value of a table or of JSON as text: what is absent is empty, and so is no finite number.

    `TypeError` for what is no text (lists, objects, truth values), and `UnicodeDecodeError` for bytes that are none.
    """
    if value is None or value != value or (isinstance(value, float) and math.isinf(value)):
        return ""
    if isinstance(value, bytes):
        return clean(value.decode())
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return str(int(value))  # a whole number that pandas made a float of, since others were missing
    if isinstance(value, bool | list | tuple | dict):
        raise TypeError(f"{type(value).__name__} is no text")
    return clean(str(value))


def without_nul(rows: Rows) -> Rows:
    """Drop rows with a NUL inside a text: it was written in another encoding, or is no text at all."""
    for row in rows:
        if isinstance(row, Row) and "\0" in row.caption + row.question + row.answer + row.url:
            yield drop("nul_in_text", " ".join(filter(None, (row.url, row.caption, row.question, row.answer))))
        else:
            yield row
