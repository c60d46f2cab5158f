"""The base of every configuration model."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen configuration model: unknown fields are refused, docstrings under fields become help texts.

    The same model reads YAML profiles, `--set` overrides and deployment parameters, and draws the form in
    the Prefect dashboard.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    IN_KEY: ClassVar[bool] = True
    """False for settings of how a stage works rather than what it makes; they never enter a key."""

    def idle(self) -> frozenset[str]:
        """Return the paths of settings that change nothing beside the others, e.g. the rate of an empty group."""
        return frozenset()
