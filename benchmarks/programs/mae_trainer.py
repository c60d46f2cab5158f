"""Trains SatSwinMAE for rounds of steps, fed by the loader or with batches that lie in memory already.

Arguments: store, training_set, recipe, threads, loader_workers, scratch. A request is {"fed": "loader" | "memory",
"steps": n}; the answer is the seconds of those steps, by the clock and of this process's CPU.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.training import Execution
from tasks.mae.objective import MaeObjective
from tasks.training.loop import Trainer
from tasks.training.share import Share

IN_MEMORY = 8  # batches


class Training:
    """A training whose steps can be timed."""

    def __init__(self, task: dict[str, Any]) -> None:
        execution = Execution.model_validate(
            {"device": "cpu", "threads": task["threads"], "loader_workers": task["loader_workers"],
             "wandb": {"mode": "disabled"}}
        )  # fmt: skip
        objective = MaeObjective({name: task[name] for name in ("store", "training_set", "recipe")})
        share = Share.join(execution)
        self.trainer = Trainer(objective, objective.recipe.training, execution, share, Path(task["scratch"]))
        self._loader = self.trainer.batches(0, 10**9)
        self._memory = itertools.cycle([next(self._loader) for _ in range(IN_MEMORY)])

    def source(self, fed: str) -> Iterator[Any]:
        """Return where batches come from."""
        return self._loader if fed == "loader" else self._memory

    def seconds(self, fed: str, steps: int) -> dict[str, float]:
        """Do so many steps."""
        source = self.source(fed)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            self.trainer.step(next(source))
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def main(task: dict[str, Any]) -> None:
    """Answer requests until the input ends."""
    training = Training(task)
    parameters = sum(p.numel() for p in training.trainer.model.parameters())
    print(json.dumps({"parameters": parameters}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(training.seconds(request["fed"], request["steps"])), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
