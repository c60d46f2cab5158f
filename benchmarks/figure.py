"""A figure: one measured number with its aim, its peer, and everything needed to judge and repeat it."""

from __future__ import annotations

import operator
from datetime import date as Date
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, computed_field

from storage.files import write_atomic

RESULTS = Path(__file__).parent / "results"

_COMPARISONS = {">=": operator.ge, "<=": operator.le, "<": operator.lt, ">": operator.gt}


class Figure(BaseModel):
    """One number of one run of a benchmark, as it is kept in `results/<name>.json`."""

    model_config = ConfigDict(frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    benchmark: str
    """Module of `benchmarks.suite` that measured it."""
    what: str
    """What was measured, for the table."""
    value: float
    unit: str
    aim: Annotated[str, Field(pattern=r"^(>=|<=|<|>) \d+(\.\d+)?$")] | None = None
    """What the value should be, e.g. `>= 10`; a figure without one is for information."""
    peer: str | None = None
    """What it is compared with, in words."""
    peer_value: float | None = None
    """What the peer reached, in `peer_unit`, in the same run."""
    peer_unit: str | None = None
    notes: tuple[str, ...] = ()
    """Sentences that belong to the number."""
    command: str
    machine: str
    date: Date
    detail: dict[str, Any] = {}
    """Raw numbers of every round, sizes, settings and software."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def met(self) -> bool | None:
        """Whether the value reaches the aim."""
        if self.aim is None:
            return None
        comparison, bound = self.aim.split()
        return _COMPARISONS[comparison](self.value, float(bound))

    def save(self, folder: Path = RESULTS) -> None:
        """Write the figure under its name, replacing its last measurement."""
        write_atomic(folder / f"{self.name}.json", self.model_dump_json(indent=1) + "\n")


def load_figures(folder: Path = RESULTS) -> list[Figure]:
    """Read every recorded figure, ordered by benchmark and name."""
    figures = [Figure.model_validate_json(path.read_bytes()) for path in folder.glob("*.json")]
    return sorted(figures, key=lambda figure: (figure.benchmark, figure.name))
