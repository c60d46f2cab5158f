"""The texts that a language model is trained on, as a file between a stage and its training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from storage.files import write_atomic
from storage.image_texts import Text


def write_texts(path: Path, parts: Mapping[str, Sequence[Text]]) -> None:
    """Write the texts of several parts as one file."""
    write_atomic(path, json.dumps(parts, ensure_ascii=False))


def load_texts(path: Path, part: str) -> list[Text]:
    """Read a part of what `write_texts` wrote."""
    return [(question, text) for question, text in json.loads(path.read_text())[part]]
