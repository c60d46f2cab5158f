"""What a benchmark gets to work with, and the arithmetic of rounds."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure
from benchmarks.machine import describe_machine, software


@dataclass(frozen=True, slots=True)
class Bench:
    """One benchmark's run."""

    name: str
    """Its module in `benchmarks.suite`."""
    work: Path
    """A folder of its own for data and outputs."""
    quick: bool = False
    """Use tiny sizes, to see that everything works; such numbers mean nothing and are not recorded."""

    def figure(self, name: str, *, detail: Mapping[str, Any], **fields: Any) -> Figure:
        """Return a figure of this run."""
        return Figure(
            name=name,
            benchmark=self.name,
            command=f"python -m benchmarks {self.name}",
            machine=describe_machine(),
            date=datetime.now(UTC).date(),
            detail={**detail, "load_average": round(os.getloadavg()[0], 2), "software": software()},
            **fields,
        )

    def say(self, text: str) -> None:
        """Tell the person who waits what is being done."""
        print(f"  {self.name}: {text}", flush=True)


def interleave(rounds: int, subjects: Mapping[str, Callable[[], Any]]) -> dict[str, list[Any]]:
    """Run A B C A B C …, so that every round meets the same disturbances; return each subject's results.

    Every other round runs backwards, so that no subject is always the one after the heaviest.
    """
    results: dict[str, list[Any]] = {name: [] for name in subjects}
    for number in range(rounds):
        order = list(subjects) if number % 2 == 0 else list(subjects)[::-1]
        for name in order:
            results[name].append(subjects[name]())
    return results


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median over rounds of ours / theirs; `median_ratio([4, 9], [2, 3]) => 2.5`."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def interval(estimate: Mapping[str, float | None], form: str = ".3f") -> str:
    """Tell the ends of an interval; a single sample has none."""
    low, high = estimate["low"], estimate["high"]
    return "no interval" if low is None or high is None else f"{low:{form}} to {high:{form}}"


def with_interval(estimate: Mapping[str, float | None], form: str = ".3f") -> str:
    """Tell a value with the interval around it."""
    return f"{estimate['value']:{form}} ({interval(estimate, form)})"


def rounded(value: float, digits: int = 3) -> float:
    """Keep significant digits; `rounded(0.012345) => 0.0123`."""
    return float(f"{value:.{digits}g}")
