"""Trains a net on puzzles by the project's loop, or goes on where it was killed, and solves the test puzzles.

Arguments: config, training, scratch, depths. The answer: parameters, CPU seconds of the training in this process, and
by depth, in steps of supervision, which test puzzles are solved; a plain net has depth 1 alone.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.puzzle_objective import PuzzleObjective, RecursiveNet, right_or_known
from configs.training import Execution, TrainingConfig
from tasks.training.loop import Trainer
from tasks.training.share import Share


def main(task: dict[str, Any]) -> dict[str, Any]:
    """Train and solve."""
    objective = PuzzleObjective(task["config"])
    execution = Execution(device="cpu", threads=1, checkpoint_minutes=1.0)
    share = Share.join(execution)
    training = TrainingConfig.model_validate(task["training"])
    trainer = Trainer(objective, training, execution, share, Path(task["scratch"]))
    began = time.process_time()
    trainer.fit()
    seconds = time.process_time() - began
    with trainer.released_weights(), torch.no_grad():
        solved = solved_by_depth(trainer, task["depths"])
    return {"parameters": trainer.trained, "cpu_seconds": seconds, "solved": solved}


def solved_by_depth(trainer: Trainer, depths: list[int]) -> dict[int, list[bool]]:
    """Return which test puzzles are solved after so many steps."""
    objective, model = trainer.objective, trainer.model
    assert isinstance(objective, PuzzleObjective)
    found: dict[int, list[bool]] = {depth: [] for depth in (depths if isinstance(model, RecursiveNet) else [1])}
    for rows in objective.tested(trainer.share):
        tokens = rows["tokens"]
        steps = model.by_depth(tokens, max(depths)) if isinstance(model, RecursiveNet) else [model(tokens)]
        for depth, logits in enumerate(steps, 1):
            if depth in found:
                found[depth] += right_or_known(logits, rows).all(1).tolist()
    return found


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))), flush=True)
