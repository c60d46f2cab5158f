"""Captions with the places that they are about, as one JSON line each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from storage.files import write_atomic
from tasks.captions.region_table import Box

FILE = "captions.jsonl"


@dataclass(frozen=True, slots=True)
class PlacedCaption:
    """What is said about one UTC day, and where."""

    date: date
    region: str | None
    """In the words of the source."""
    box: Box | None
    """North, west, south, east in degrees; none where no region is known."""
    text: str
    source: str
    """`file:line`."""


def write_placed(folder: Path, captions: Iterable[PlacedCaption]) -> None:
    """Write captions in their order."""
    lines = (json.dumps({**asdict(c), "date": f"{c.date}"}, ensure_ascii=False, sort_keys=True) for c in captions)
    write_atomic(folder / FILE, "".join(f"{line}\n" for line in lines))


def load_placed(folder: Path) -> list[PlacedCaption]:
    """Read what `write_placed` wrote."""
    return [_caption(json.loads(line)) for line in (folder / FILE).read_text().splitlines()]


def _caption(values: dict[str, Any]) -> PlacedCaption:
    box = values["box"] and tuple(values["box"])
    return PlacedCaption(date.fromisoformat(values["date"]), values["region"], box, values["text"], values["source"])
