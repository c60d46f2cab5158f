"""Documents for training a language model: all that is said about a region's day, one wording after another."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from storage.files import write_atomic
from tasks.captions.placed import PlacedCaption

UNKNOWN_REGION = "Weather"
"""What a prompt says where no region is named."""


@dataclass(frozen=True, slots=True)
class Document:
    """Several wordings of the same weather: what follows the first one can be told from it."""

    date: date
    region: str | None
    texts: tuple[str, ...]
    part: Literal["train", "validation"]


def make_documents(captions: Sequence[PlacedCaption], held_out: float) -> list[Document]:
    """Group captions by date and region; whole dates are held out, chosen by a hash."""
    groups: dict[tuple[date, str | None], list[str]] = defaultdict(list)
    for caption in captions:
        groups[caption.date, caption.region].append(caption.text)
    return [
        Document(day, region, tuple(texts), "validation" if _share(day) < held_out else "train")
        for (day, region), texts in groups.items()
    ]


def _share(day: date) -> float:
    return int.from_bytes(hashlib.sha256(f"{day}".encode()).digest()[:4], "big") / 2**32


def write_documents(path: Path, documents: Sequence[Document]) -> None:
    """Write documents as JSON lines."""
    rows = ([f"{d.date}", d.region, d.texts, d.part] for d in documents)
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def load_documents(path: Path) -> list[Document]:
    """Read what `write_documents` wrote."""
    rows = map(json.loads, path.read_text().splitlines())
    return [Document(date.fromisoformat(day), region, tuple(texts), part) for day, region, texts, part in rows]


def prompt_for(template: str, region: str | None, day: date) -> str:
    """Fill a prompt's {region} and {date}."""
    return template.format(region=region or UNKNOWN_REGION, date=f"{day}")
