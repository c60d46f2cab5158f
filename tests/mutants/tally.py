"""Scores of sessions, and the survivors that nobody has explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.mutants.judges import Judged, Survivor
from tests.mutants.session import Row


@dataclass(frozen=True)
class Score:
    """Counts of a module, or of all."""

    module: str
    faults: int
    """That the operators make."""
    killed: int
    survived: int
    """Explained ones among them."""
    explained: int

    @property
    def score(self) -> float | None:
        """Return killed / (killed + survived); explained survivors count as survivors."""
        run = self.killed + self.survived
        return self.killed / run if run else None


@dataclass(frozen=True)
class Tally:
    """What became of all faults that were run."""

    modules: list[Score]
    unexplained: list[Row]

    @property
    def whole(self) -> Score:
        """Return the sums over modules."""
        counts = [(s.faults, s.killed, s.survived, s.explained) for s in self.modules]
        return Score("all", *map(sum, zip(*counts, strict=True)))

    def json(self) -> dict[str, Any]:
        """Return plain values."""
        rows = [asdict(s) | {"score": s.score} for s in (*self.modules, self.whole)]
        return {"modules": rows[:-1], "all": rows[-1], "unexplained": [asdict(row) for row in self.unexplained]}

    def text(self) -> str:
        """Return the table, and the survivors without an explanation."""
        lines = [f"{'module':36} {'faults':>6} {'killed':>6} {'survived':>8} {'explained':>9} {'score':>6}"]
        for s in (*self.modules, self.whole):
            score = "" if s.score is None else f"{s.score:.3f}"
            lines.append(f"{s.module:36} {s.faults:6} {s.killed:6} {s.survived:8} {s.explained:9} {score:>6}")
        for row in self.unexplained:
            lines.append(
                f"\n{row.module}:{row.line} {row.definition} {row.operator}\n  - {row.before}\n  + {row.after}"
            )
        return "\n".join(lines)


def tally(found: Mapping[Judged, tuple[int, Sequence[Row]]], known: Sequence[Survivor]) -> Tally:
    """Count what became of the faults of each module, of which there are so many."""
    modules, unexplained = [], []
    for judged, (faults, rows) in found.items():
        alive = [row for row in rows if not row.killed]
        unknown = [row for row in alive if not any(explains(survivor, row) for survivor in known)]
        modules.append(Score(judged.module, faults, len(rows) - len(alive), len(alive), len(alive) - len(unknown)))
        unexplained += unknown
    return Tally(modules, unexplained)


def explains(survivor: Survivor, row: Row) -> bool:
    """Say whether an explanation is of this fault."""
    return (survivor.module, survivor.definition, survivor.before, survivor.after) == (
        row.module, row.definition, row.before, row.after,
    )  # fmt: skip
