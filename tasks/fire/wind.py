"""Wind of a fire, from its weather file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs.fire_data import Decoding
from storage.delimited import DELIMITERS, SHOWN, Row, read_delimited

NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
UNKNOWN = {
    "", "na", "n/a", "n.a.", "#n/a", "nan", "null", "none", "nil", "missing", "unknown", "-", "--", "---", ".", "*",
    "?", "m", "/", "//", "///", "vrb", "var", "variable", "inf", "+inf", "-inf",
}  # fmt: skip
"""What stands for a value that was not measured, in small letters."""
FASTEST = 300
"""No hourly mean of the wind was ever above 278 km/h (Mount Washington, 1934)."""


@dataclass(frozen=True, slots=True, eq=False)
class Wind:
    """Wind of T frames."""

    vectors: NDArray[np.float32]
    """(T, 3) speed, sin and cos of the direction it blows from; 0 where not measured."""
    valid: NDArray[np.bool_]
    """(T,) where it was measured."""
    unmeasured: list[str]
    """A line and its cells for every row that is there and not measured."""
    delimiter: str
    """What parts the columns, in words."""
    highest: float
    """The highest direction in degrees; 0 where none was measured."""


def read_wind(path: Path, steps: int, decoding: Decoding) -> Wind:
    """Read the wind of T frames.

    Row t drives frame t to t + 1, so T frames need T - 1 rows; with T rows the last one belongs to what comes after the
    last frame. Speeds and directions that no wind has, such as 999 and -9999, were not measured. `ValueError` (what is
    wrong, no path) when columns are missing, another number of rows is there, or a cell is no number.
    """
    names = decoding.wind_speed, decoding.wind_direction
    table = read_delimited(path, lambda header: set(names) <= set(header))
    missing = [name for name in names if name not in table.header]
    if missing:
        raise ValueError(
            f"has no column {' and '.join(missing)}, only {', '.join(table.header)[:SHOWN]}; see decoding.wind_speed "
            "and decoding.wind_direction"
        )
    columns = {name: table.column(name) for name in names}
    rows = list(table.rows)
    while len(rows) > steps and not any(cell.strip() for cell in rows[-1][1]):
        rows.pop()  # what spreadsheets leave below a table
    if len(rows) not in (steps - 1, steps):
        raise ValueError(f"has {len(rows)} rows, where {steps} frames need {steps - 1} (or {steps})")
    measured = np.array([_measured(row, table.header, columns) for row in rows], np.float64).reshape(-1, 2)
    speed, direction = measured.T
    known = (speed >= 0) & (speed <= FASTEST) & (direction >= 0) & (direction <= 360)
    angle = np.deg2rad(direction[known] % 360)
    vectors, valid = np.zeros((steps, 3), np.float32), np.zeros(steps, bool)
    valid[: len(known)] = known
    vectors[: len(known)][known] = np.stack([speed[known], np.sin(angle), np.cos(angle)], axis=1)
    unmeasured = [_shown(row, columns) for row, good in zip(rows, known, strict=True) if not good]
    delimiter = DELIMITERS.get(table.delimiter, repr(table.delimiter))
    return Wind(vectors, valid, unmeasured, delimiter, float(direction[known].max(initial=0)))


def _measured(row: Row, header: list[str], columns: dict[str, int]) -> list[float]:
    """Return a row's speed and direction, NaN where there is none; a shorter row may lack any of its cells."""
    line, cells = row
    if any(cell.strip() for cell in cells[len(header) :]):
        raise ValueError(
            f"has more cells in line {line} than in its header ({','.join(cells)[:SHOWN]}); quote numbers "
            "with decimal commas, or write decimal points"
        )
    if len(cells) < len(header):
        return [np.nan, np.nan]
    return [_number(cells[place], line, name) for name, place in columns.items()]


def _number(cell: str, line: int, column: str) -> float:
    text = cell.strip()
    if text.lower() in UNKNOWN:
        return np.nan
    if NUMBER.fullmatch(text):
        return float(text.replace(",", "."))
    raise ValueError(f"has {text[:SHOWN]!r} for {column} in line {line}; write a plain number, or leave the cell empty")


def _shown(row: Row, columns: dict[str, int]) -> str:
    line, cells = row
    words = [f"{name} {cells[place].strip() or 'empty'}" for name, place in columns.items() if place < len(cells)]
    return f"line {line}: {', '.join(words) or 'cells are missing'}"
