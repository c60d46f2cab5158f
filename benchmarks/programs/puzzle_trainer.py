"""Trains a net on puzzles by the project's loop, or goes on where it was killed, and solves those that are judged.

Arguments: config, training, scratch, depths. The answer: parameters, CPU seconds of the training in this process, and
by depth, in steps of supervision, which puzzles are solved and the share of their unknown cells that are right; a plain
net has depth 1 alone.
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
        solved, cells = solved_by_depth(trainer, task["depths"])
    return {"parameters": trainer.trained, "cpu_seconds": seconds, "solved": solved, "cells": cells}


def solved_by_depth(trainer: Trainer, depths: list[int]) -> tuple[dict[int, list[bool]], dict[int, float]]:
    """Return which puzzles are solved after so many steps, and the share of unknown cells that are right."""
    objective, model = trainer.objective, trainer.model
    assert isinstance(objective, PuzzleObjective)
    kept = depths if isinstance(model, RecursiveNet) else [1]
    solved: dict[int, list[bool]] = {depth: [] for depth in kept}
    right, unknown = dict.fromkeys(kept, 0), 0
    for rows in objective.judged(trainer.share):
        tokens = rows["tokens"]
        unknown += int((tokens == 0).sum())
        steps = model.by_depth(tokens, max(depths)) if isinstance(model, RecursiveNet) else [model(tokens)]
        for depth, logits in enumerate(steps, 1):
            if depth in solved:
                found = right_or_known(logits, rows)
                solved[depth] += found.all(1).tolist()
                right[depth] += int((found & (tokens == 0)).sum())
    return solved, {depth: count / unknown for depth, count in right.items()}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))), flush=True)
