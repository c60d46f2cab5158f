"""The history of a training: rows of numbers, appended as JSON lines, cut back when a training resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from storage.files import atomic_path, fsync, write_atomic
from storage.hashing import canonical_json


class History:
    """Rows in a file of JSON lines; its length in bytes is part of every checkpoint."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def sync(self) -> int:
        """Force all rows to disk and return the bytes so far."""
        fsync(self._path)
        return self._path.stat().st_size

    def cut(self, size: int) -> None:
        """Forget what was written after a checkpoint."""
        os.truncate(self._path, size)

    def append(self, kind: str, row: Mapping[str, Any]) -> None:
        """Add a row; `kind` is `training` or `evaluation`."""
        with self._path.open("a") as file:
            file.write(canonical_json({"kind": kind, **row}) + "\n")

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """Return all rows of a kind, without the kind."""
        rows = [json.loads(line) for line in self._path.read_text().splitlines()]
        return [{k: v for k, v in row.items() if k != "kind"} for row in rows if row["kind"] == kind]

    def publish(self, path: Path) -> None:
        """Write all rows as one JSON file: `{"training": [...], "evaluation": [...]}`."""
        content = {kind: self.rows(kind) for kind in ("training", "evaluation")}
        write_atomic(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


class Interval:
    """Sums over the steps since the last row: what a row of the training history is the mean of."""

    def __init__(self, sums: Mapping[str, float] | None = None) -> None:
        self.sums = dict(sums or {})
        """By name: `loss.TERM` and `weight.TERM` over all samples, `norm` over steps, and `steps`."""

    def add(self, losses: Mapping[str, float], weights: Mapping[str, float], norm: float) -> None:
        """Take in one step."""
        new = {f"loss.{t}": v for t, v in losses.items()} | {f"weight.{t}": v for t, v in weights.items()}
        for name, value in {**new, "norm": norm, "steps": 1.0}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def row(self, coefficients: Mapping[str, float]) -> dict[str, Any]:
        """Return the means and start anew."""
        sums, self.sums = self.sums, {}
        terms = [name.removeprefix("loss.") for name in sums if name.startswith("loss.")]
        means = {t: sums[f"loss.{t}"] / sums[f"weight.{t}"] if sums[f"weight.{t}"] else 0.0 for t in terms}
        total = total_loss(means, coefficients)
        return {"loss": total, "terms": means, "gradient_norm": sums["norm"] / sums["steps"]}


def total_loss(means: Mapping[str, float], coefficients: Mapping[str, float]) -> float:
    """Return the weighted sum of loss terms; a coefficient is 1 where none is named."""
    return sum(coefficients.get(term, 1.0) * mean for term, mean in means.items())


def draw_curves(training: Sequence[Mapping[str, Any]], evaluation: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss, learning rates, gradient norm and the metrics of the evaluations over the steps, as a PNG."""
    from matplotlib.figure import Figure

    metrics = sorted({n for row in evaluation for n, v in row.items() if n not in ("step", "epoch") and v is not None})
    panels: list[tuple[str, dict[str, tuple[list[float], list[float]]]]] = []
    steps = [row["step"] for row in training]
    terms = sorted(training[0]["terms"]) if training else []
    losses = {"loss": (steps, [row["loss"] for row in training])}
    if len(terms) > 1:
        losses |= {term: (steps, [row["terms"][term] for row in training]) for term in terms}
    groups = sorted(training[0]["learning_rates"]) if training else []
    panels.append(("training loss", losses))
    panels.append(("learning rate", {g: (steps, [row["learning_rates"][g] for row in training]) for g in groups}))
    panels.append(("gradient norm", {"before clipping": (steps, [row["gradient_norm"] for row in training])}))
    for name in metrics:
        rows = [row for row in evaluation if row.get(name) is not None]
        panels.append((name, {name: ([row["step"] for row in rows], [row[name] for row in rows])}))
    columns = 3
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.9 * lines), layout="constrained")
    for number, (title, series) in enumerate(panels):
        axes = figure.add_subplot(lines, columns, number + 1)
        for label, (x, y) in series.items():
            axes.plot(x, y, label=label, marker="o" if len(x) < 25 else None, markersize=3, linewidth=1.4)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if len(series) > 1:
            axes.legend(fontsize=8, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
