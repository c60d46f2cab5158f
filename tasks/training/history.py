"""The history of a training: rows of numbers, appended as JSON lines, cut back when a training resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.files import fsync, write_atomic
from storage.hashing import canonical_json

HISTORY = "history.json"
"""Name in the asset of a training."""
KINDS = ("training", "evaluation")


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

    def all_rows(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of each kind."""
        return {kind: self.rows(kind) for kind in KINDS}

    def publish(self, folder: Path) -> None:
        """Write all rows as one JSON file for `read_history`."""
        write_atomic(folder / HISTORY, json.dumps(self.all_rows(), indent=1, sort_keys=True) + "\n")


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


def read_history(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a training's asset by kind, `training` and `evaluation`."""
    content: dict[str, list[dict[str, Any]]] = json.loads((folder / HISTORY).read_text())
    return content
