"""The pipelines that exist: every module of `flows` that declares a `PIPELINE`, under the module's name.

A pipeline is imported when it is asked for, so neither its libraries nor its faults are any other's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from configs.base import Config
from configs.load import profile_minutes, profile_path
from flows.evaluation import Given

ALL = "all"
Judge = Callable[[Given], Callable[[], Any]]
"""From a model and what was given to the call of the stage that judges it."""
DECLARATION = re.compile(r"^PIPELINE = ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A named wiring of stages and the configuration that it takes; the name is that of its module in `flows`."""

    name: str
    title: str
    config: type[Config]
    wire: Callable[[Any], Any]
    judges: Mapping[str, Judge] = field(default_factory=dict, hash=False)
    """By kind of released model, what judges one again on other data."""

    def page(self, root: Path) -> Path:
        """Return where its report goes."""
        return root / "reports" / f"{self.name}.html"


def pipeline_names() -> list[str]:
    """Return the names of all pipelines; none is imported."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if DECLARATION.search(path.read_text()))


def find_pipelines(name: str) -> list[Pipeline]:
    """Return a pipeline by its name, or every one for `all`, the longest demo first: side by side they end sooner."""
    if name != ALL:
        return [find_pipeline(name)]
    minutes = {each: profile_minutes(profile_path(each, "demo")) or 0 for each in pipeline_names()}
    return [find_pipeline(each) for each in sorted(minutes, key=lambda each: -minutes[each])]


def find_pipeline(name: str) -> Pipeline:
    """Return a pipeline by its name."""
    if name not in (names := pipeline_names()):
        raise ValueError(f"there is no pipeline {name!r}; there are: {', '.join(names)}")
    pipeline: Pipeline = import_module(f"flows.{name}").PIPELINE
    return pipeline
