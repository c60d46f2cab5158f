"""Which modules are given faults, which tests judge them, and which survivors are explained."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
KINDS = {
    "equivalent": "no input tells it from the original",
    "unreachable": "no caller can bring it about",
    "speed": "changes time or memory only",
    "wording": "changes what people read only",
    "tolerance": "a constant whose exact value is a choice",
}


@dataclass(frozen=True)
class Judged:
    """A module and its tests."""

    name: str
    module: str
    tests: tuple[str, ...]
    only: tuple[str, ...] = ()
    select: str = ""

    @property
    def arguments(self) -> list[str]:
        """What pytest is called with."""
        return [*self.tests, *(["-k", self.select] if self.select else [])]

    def files(self) -> list[str]:
        """Return the files of the tests."""
        return sorted(self.tests)


@dataclass(frozen=True)
class Survivor:
    """A fault that no test finds, and why."""

    module: str
    definition: str
    before: str
    after: str
    kind: str
    why: str


def load_judges(path: Path) -> dict[str, Judged]:
    """Return the modules by their short names, in order."""
    return {
        name: Judged(name, **{key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()})
        for name, entry in tomllib.loads(path.read_text()).items()
    }


def load_survivors(path: Path) -> list[Survivor]:
    """Return the survivors that are explained."""
    return [Survivor(**entry) for entry in tomllib.loads(path.read_text()).get("survivor", [])]
