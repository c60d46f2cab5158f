"""Objectives by name, with what they are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storage.hashing import jsonable

if TYPE_CHECKING:
    from tasks.training.objective import Objective


@dataclass(frozen=True, slots=True)
class ObjectiveSpec:
    """What an objective is made from: the same where a model is trained, judged again, or quantised."""

    path: str
    """`module:Class`."""
    config: Mapping[str, Any]
    """Folders of its data, and recipes."""

    def make(self) -> Objective:
        """Return the objective."""
        from tasks.training.objective import make_objective

        return make_objective(self.path, jsonable(dict(self.config)))
