"""Trains an objective for rounds of steps: by the project's loop, or by a bare one over batches on the device already.

Arguments: objective, config, training, device, loader_workers, scratch, and threads where it is a CPU. A request is
{"loop": "ours" | "bare", "steps": n}; the answer is the seconds of those steps, until the device has done them. The
first answer tells parameters, samples of a step and what they count for each term of the loss, and the device; that to
{"loop": "memory"} the most memory of the device so far.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from configs.training import Execution, TrainingConfig
from tasks.training.loop import Trainer
from tasks.training.objective import make_objective
from tasks.training.share import Share

ON_DEVICE = 8  # steps whose batches the bare loop goes round


class Training:
    """One model, trained in two ways by turns."""

    def __init__(self, task: dict[str, Any]) -> None:
        training = TrainingConfig.model_validate(task["training"])
        names = ("device", "loader_workers", "threads")
        execution = Execution.model_validate({name: task[name] for name in names if name in task})
        self._share = Share.join(execution)
        objective = make_objective(task["objective"], task["config"])
        self.trainer = Trainer(objective, training, execution, self._share, Path(task["scratch"]))
        self.trainer.model.train()
        self._batches = self.trainer.batches(0, 10**9)
        ready = [next(self._batches) for _ in range(ON_DEVICE)]
        self._counts = {
            term: sum(float(micro.weights[term]) for step in ready for micro in step) / ON_DEVICE
            for term in ready[0][0].weights
        }
        self._ready = itertools.cycle(ready)
        trained = [p for p in self.trainer.model.parameters() if p.requires_grad]
        self._adam = torch.optim.AdamW(trained, lr=1e-6, fused=True)

    def seconds(self, loop: str, steps: int) -> float:
        """Do so many steps."""
        self._wait()
        began = time.perf_counter()
        for _ in range(steps):
            if loop == "ours":
                self.trainer.step(next(self._batches))
                self._batches.prefetch()
            else:
                self._bare_step()
        self._wait()
        return time.perf_counter() - began

    def _bare_step(self) -> None:
        """Forward, backward, update, and nothing else: what the device could do at best."""
        objective, model = self.trainer.objective, self.trainer.model
        for micro in next(self._ready):
            half = self.trainer.config.precision == "bf16"
            with torch.autocast(self._share.device.type, torch.bfloat16, enabled=half):
                losses = objective.losses(model, micro.batch)
            factors = objective.coefficients
            torch.stack(
                [loss * (factors.get(t, 1.0) / micro.weights[t]) for t, loss in losses.items()]
            ).sum().backward()
        self._adam.step()
        self._adam.zero_grad(set_to_none=False)

    def _wait(self) -> None:
        if self._share.device.type == "cuda":
            torch.cuda.synchronize()

    def facts(self) -> dict[str, Any]:
        """Return what is trained on what."""
        parameters = sum(p.numel() for p in self.trainer.model.parameters())
        batch_size = self.trainer.config.batch_size
        return {
            "parameters": parameters,
            "batch": batch_size,
            "counts": self._counts,
            "machine": self._share.machine(),
        }

    def memory(self) -> float:
        """Return the most memory that tensors have had on the device so far, in GB."""
        return torch.cuda.max_memory_allocated() / 1e9 if self._share.device.type == "cuda" else 0.0


def main(task: dict[str, Any]) -> None:
    """Answer requests until the input ends."""
    training = Training(task)
    print(json.dumps(training.facts()), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = (
            training.memory() if request["loop"] == "memory" else training.seconds(request["loop"], request["steps"])
        )
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
