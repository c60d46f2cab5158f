"""Canonical JSON and the SHA-256 digests that name configs, files and assets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

IN_KEY = False


def jsonable(value: Any) -> Any:
    """Reduce pydantic models, tuples and dates to plain JSON values; `jsonable(date(2024, 1, 1)) => '2024-01-01'`.

    Sets are refused (`TypeError`): their order differs between processes, so they cannot name anything.
    """
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no canonical JSON form")


def canonical_json(value: Any) -> str:
    """Encode with sorted keys and no spaces; equal values give equal text in every process."""
    return _encode(jsonable(value))


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def json_digest(value: Any) -> str:
    """Return `digest` of what a JSON parser returned, which is a good deal quicker for long lists."""
    return hashlib.sha256(_encode(value).encode()).hexdigest()


def _encode(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
