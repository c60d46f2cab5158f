"""Which input shapes are read, refused, or skipped with a word. `python -m tests.inputs` writes docs/inputs.md.

A row of its tables is the marker `input_shape(format, shape, outcome)` of the test that holds it.
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import pytest

from tests.conftest import REPOSITORY

MARKER = "input_shape"
PAGE = REPOSITORY / "docs" / "inputs.md"
OUTCOMES = {
    "read": "Read",
    "skipped": "Skipped with a word: left out, counted and named",
    "refused": "Refused: one sentence says what is wrong, where, and what to do",
}
HEAD = """# Which inputs are read, and which are not

Every row is held by a test, whose file the last column names; the page is made from them by `python -m tests.inputs`.
A program may find what it likes in a file, so this list is no promise about all others: what a reader cannot make
sense of, it refuses in one sentence, and `make fuzz` looks for files where it does not.
"""


class Shape(NamedTuple):
    """A row of the page, in the order in which rows stand."""

    format: str
    outcome: str
    shape: str
    test: str


class Collector:
    """A plugin of pytest that takes what is collected."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = session.items


def collect() -> set[Shape]:
    """Return the shapes of all tests, all of which are imported: a file may have its marker from another one."""
    collector = Collector()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = pytest.main(["--collect-only", "-p", "no:cacheprovider", str(REPOSITORY / "tests")], [collector])
    if status != pytest.ExitCode.OK:
        raise SystemExit(said.getvalue())
    return shapes_of(collector.items)


def shapes_of(items: Iterable[pytest.Item]) -> set[Shape]:
    """Return the shapes of these tests; several may hold one, then each is a row."""
    return {
        Shape(test=item.path.relative_to(REPOSITORY).as_posix(), **marker.kwargs)
        for item in items
        for marker in item.iter_markers(MARKER)
    }


def page(shapes: Iterable[Shape]) -> str:
    """Return the page: how many shapes there are, then a table for each format."""
    formats: dict[str, list[Shape]] = defaultdict(list)
    for shape in sorted(shapes, key=lambda s: (s.format.lower(), list(OUTCOMES).index(s.outcome), s.shape.lower(), s)):
        formats[shape.format].append(shape)
    lines = [HEAD, "| format | read | skipped | refused |", "|---|---|---|---|"]
    for name, rows in formats.items():
        counts = Counter(row.outcome for row in rows)
        anchor = "".join(c for c in name.lower().replace(" ", "-") if c.isalnum() or c == "-")
        lines.append(f"| [{name}](#{anchor}) | {' | '.join(str(counts[outcome]) for outcome in OUTCOMES)} |")
    for name, rows in formats.items():
        lines += ["", f"## {name}", "", "| shape | outcome | test |", "|---|---|---|"]
        lines += map(line, rows)
    lines += ["", *(f"- {text}." for text in OUTCOMES.values())]
    return "\n".join(lines) + "\n"


def line(shape: Shape) -> str:
    """Return a shape's line of its table."""
    text = " ".join(shape.shape.split()).replace("|", "\\|")
    return f"| {text} | {shape.outcome} | `{shape.test}` |"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(collect()))


if __name__ == "__main__":
    main()
