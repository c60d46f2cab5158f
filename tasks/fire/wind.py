"""Wind of a fire, from its weather file."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs.fire_data import Decoding


def read_wind(path: Path, steps: int, decoding: Decoding) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return wind (T, 3) as speed, sin and cos of the direction it blows from, and where it was measured (T,).

    Row t drives frame t to t + 1, so T frames need T - 1 rows; with T rows the last one belongs to what comes after the
    last frame. `ValueError` (what is wrong, no path) when columns are missing or another number of rows is there.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    header = [cell.strip() for cell in rows[0]] if rows else []
    missing = [c for c in (decoding.wind_speed, decoding.wind_direction) if c not in header]
    if missing:
        raise ValueError(
            f"has no column {' and '.join(missing)}, only {', '.join(header) or 'nothing'}; see decoding.wind_speed "
            "and decoding.wind_direction"
        )
    if len(rows) - 1 not in (steps - 1, steps):
        raise ValueError(f"has {len(rows) - 1} rows, where {steps} frames need {steps - 1} (or {steps})")
    columns = header.index(decoding.wind_speed), header.index(decoding.wind_direction)
    measured = np.array([[_number(row, c) for c in columns] for row in rows[1:]], np.float64).reshape(-1, 2)
    speed, direction = measured[:, 0], np.deg2rad(measured[:, 1] % 360)
    known = np.isfinite(measured).all(axis=1) & (speed >= 0)
    wind = np.zeros((steps, 3), np.float32)
    valid = np.zeros(steps, bool)
    valid[: len(known)] = known
    with np.errstate(invalid="ignore"):
        vectors = np.stack([speed, np.sin(direction), np.cos(direction)], axis=1)
    wind[: len(known)][known] = vectors[known]
    return wind, valid


def _number(row: list[str], column: int) -> float:
    try:
        return float(row[column])
    except (IndexError, ValueError):
        return float("nan")
