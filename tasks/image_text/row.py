"""Input rows as readers yield them: usable, or dropped for a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

URL = ("http://", "https://")
TEXT_SHOWN = 200


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
    return Dropped(reason, text[:TEXT_SHOWN])
