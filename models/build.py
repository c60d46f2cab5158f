"""Modules from their configuration: a config class names what it builds, and nothing else has to know."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol


class Named(Protocol):
    """A value that names what it builds, as `module:Class`: a config, or a member of an enumeration."""

    @property
    def BUILDS(self) -> str:  # noqa: N802
        """`module:Class`."""


def imported(path: str) -> Any:
    """Return what an import path `module:name` names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def build(config: Named, *arguments: Any) -> Any:
    """Return what a config names, made from the config and the arguments."""
    return imported(config.BUILDS)(config, *arguments)
