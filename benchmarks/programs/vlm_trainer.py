"""Trains a vision-language model for rounds of steps: by the project's loop and loader, or by a plain loop of torch.

Arguments: objective (its configuration), threads, loader_workers, scratch. A request is {"by": "loop" | "plain",
"steps": n}; the answer is the seconds of those steps, by the clock and of this process's CPU.

The plain loop has batches in memory, and does what a loop of a few lines does: forward, backward, `clip_grad_norm_`,
`torch.optim.AdamW`, with the same losses of the same model.
"""

from __future__ import annotations

import copy
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from configs.training import Execution
from tasks.training.loop import Trainer
from tasks.training.share import Share
from tasks.training.transfer import MicroBatch
from tasks.vision_language.objective import VlmObjective

IN_MEMORY = 8  # batches


class Training:
    """The same training in two ways."""

    def __init__(self, task: dict[str, Any]) -> None:
        execution = Execution.model_validate(
            {"device": "cpu", "threads": task["threads"], "loader_workers": task["loader_workers"],
             "wandb": {"mode": "disabled"}}
        )  # fmt: skip
        self.objective = VlmObjective(task["objective"])
        share = Share.join(execution)
        training = self.objective.settings.training
        self.trainer = Trainer(self.objective, training, execution, share, Path(task["scratch"]))
        self._loader = self.trainer.batches(0, 10**9)
        self._memory = itertools.cycle([next(self._loader)[0] for _ in range(IN_MEMORY)])
        self.plain = copy.deepcopy(self.trainer.model).train()
        groups = self.objective.groups(self.plain)
        self._optimiser = torch.optim.AdamW(
            [{"params": groups[name], "lr": rate} for name, rate in training.learning_rates.items()],
            betas=training.betas, weight_decay=training.weight_decay,
        )  # fmt: skip
        self._clip_norm = training.clip_norm

    def seconds(self, by: str, steps: int) -> dict[str, float]:
        """Do so many steps."""
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            if by == "loop":
                self.trainer.step(next(self._loader))
            else:
                self._plain_step(next(self._memory))
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}

    def _plain_step(self, micro: MicroBatch) -> None:
        terms = self.plain(micro.batch).terms
        weights = self.objective.coefficients
        loss = sum(weights[term] * terms[term].sum() / count for term, count in micro.weights.items() if count)
        self._optimiser.zero_grad()
        loss.backward()
        if self._clip_norm:
            nn.utils.clip_grad_norm_(self.plain.parameters(), self._clip_norm)
        self._optimiser.step()
        loss.item()


def main(task: dict[str, Any]) -> None:
    """Answer requests until the input ends."""
    training = Training(task)
    sizes = {"parameters": sum(p.numel() for p in training.plain.parameters()), "trained": training.trainer.trained}
    print(json.dumps(sizes), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(training.seconds(request["by"], request["steps"])), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
