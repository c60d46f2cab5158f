"""Learning rates as a pure function of the step."""

from __future__ import annotations

import math

from configs.training import TrainingConfig


def learning_rate(config: TrainingConfig, group: str, step: int, steps_per_epoch: int) -> float:
    """Return a group's learning rate for the update at `step` (from 0).

    A linear warm-up and a cosine that ends at the training's last step; both start when the group thaws. A frozen
    group has 0.
    """
    first = config.freeze.get(group, 0) * steps_per_epoch
    total = config.epochs * steps_per_epoch - first
    step -= first
    if step < 0:
        return 0.0
    peak = config.learning_rates[group]
    warmup = min(config.warmup_steps, total)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return peak * (config.final_lr_share + (1 - config.final_lr_share) * cosine)
