"""Trainers of the toy in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from configs.training import Execution, TrainingConfig
from tasks.training.loop import Trainer
from tasks.training.share import Share
from tests.training.toy import Toy

RATES = {"body": 0.01, "head": 0.02}


def config(**changes: Any) -> TrainingConfig:
    values = {"epochs": 2, "batch_size": 8, "learning_rates": RATES, "history_every": 1} | changes
    return TrainingConfig.model_validate(values)


def trainer(folder: Path, objective: Toy | None = None, execution: dict[str, Any] | None = None, **training: Any):
    """Return a trainer whose remarks are collected in `trainer.said`."""
    said: list[str] = []
    where = Execution.model_validate({"device": "cpu"} | (execution or {}))
    new = Trainer(objective or Toy({}), config(**training), where, Share(), folder, said.append)
    new.said = said
    return new


def micro_batches(one: Trainer, step: int = 0):
    """Return the micro-batches of a step."""
    return next(one.batches(step, step + 1))


def weights_of(one: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in one.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
