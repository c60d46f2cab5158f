"""The base of every configuration model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True, slots=True)
class Added:
    """Marks a field that is younger than keys that exist: `Annotated[int, Added(before=2)] = 2`.

    Where the field has the value that says what was done before there was a field, it is left out of keys, so that the
    new field makes nothing again. To change a default on purpose, change the default alone: `before` stays for good.
    """

    before: Any


class Config(BaseModel):
    """A frozen configuration model: unknown fields are refused, docstrings under fields become help texts.

    The same model reads YAML profiles, `--set` overrides and deployment parameters, and draws the form in
    the Prefect dashboard.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    IN_KEY: ClassVar[bool] = True
    """False for settings of how a stage works rather than what it makes; they never enter a key."""

    BUILDS: ClassVar[str] = ""
    """What `models.build.build` makes of a value of this class, as `module:Class`; that code enters keys with it."""

    def idle(self) -> frozenset[str]:
        """Return the paths of settings that change nothing beside the others, e.g. the rate of an empty group."""
        return frozenset()
