"""What a stage's config adds to its key: its values, and the code that they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from configs.base import Added
from storage.hashing import jsonable

IN_KEY = False


def config_in_key(value: Any) -> Any:
    """Return the JSON by which a config value enters a key: without younger fields that change nothing (`Added`)."""
    return _pruned(value, jsonable(value))


def _pruned(value: Any, dumped: Any) -> Any:
    if isinstance(value, BaseModel):
        kept = {}
        for name, field in type(value).model_fields.items():
            inner = getattr(value, name)
            younger = any(isinstance(mark, Added) and mark.before == inner for mark in field.metadata)
            if getattr(inner, "IN_KEY", True) and not younger:
                kept[name] = _pruned(inner, dumped[name])
        return kept
    if isinstance(value, Mapping):
        return {str(name): _pruned(inner, dumped[str(name)]) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_pruned(inner, other) for inner, other in zip(value, dumped, strict=True)]
    return dumped


def named(value: Any) -> Iterator[str]:
    """Yield what a value and all values inside name in `BUILDS`, as `module:Class`."""
    if getattr(value, "IN_KEY", True):
        if names := getattr(value, "BUILDS", ""):
            yield names
        inner: Any = ()
        if isinstance(value, BaseModel):
            inner = [getattr(value, name) for name in type(value).model_fields]
        elif isinstance(value, Mapping):
            inner = value.values()
        elif isinstance(value, list | tuple):
            inner = value
        for part in inner:
            yield from named(part)
