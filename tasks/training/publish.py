"""What a finished training leaves in its asset: the released model and its history."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tasks.training.loop import Trainer
from tasks.training.release import WEIGHTS, write_config, write_weights


def publish(trainer: Trainer, folder: Path) -> dict[str, Any]:
    """Write the asset's files and return the stage's counts, metrics and machines."""
    released = _release(trainer, folder)
    trainer.history.publish(folder)
    cursor = trainer.cursor
    counts = {
        "steps": cursor.step,
        "epochs": cursor.step // trainer.steps_per_epoch,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "parameters_trained": trainer.trained,
        "weights_of_step": released["step"],
        "stopped_early": cursor.stopped,
    }
    metrics = {
        "loss": trainer.history.rows("training")[-1]["loss"],
        "samples_per_second": trainer.samples_per_second,
        "training_seconds": cursor.seconds,
    }
    of_release = {f"val/{name}": value for name, value in released["metrics"].items()}
    trainer.tracker.finish(folder, {**counts, **metrics, **of_release})
    return {
        "counts": counts,
        "metrics": {**released["metrics"], **metrics},
        "machines": trainer.machines,
    }


def _release(trainer: Trainer, folder: Path) -> dict[str, Any]:
    """Write the best or the last weights with their `config.json`; return what that says of them."""
    goal, best, step = trainer.config.best, trainer.cursor.best, trainer.cursor.step
    (folder / WEIGHTS).unlink(missing_ok=True)
    if goal is not None:
        if best is None:
            raise ValueError(
                f"no evaluation reported a finite {goal.metric!r}, so there are no best weights to release; see "
                "the training history, or choose another training.best"
            )
        step = best["step"]
        shutil.copyfile(trainer.best_path(step), folder / WEIGHTS)
    else:
        with trainer.released_weights():
            write_weights(folder / WEIGHTS, trainer.model, trainer.objective.stored)
    row = next(row for row in trainer.history.rows("evaluation") if row["step"] == step)
    released = {
        "chosen": "last" if goal is None else f"best {goal.metric}",
        "step": step,
        "epoch": row["epoch"],
        "moving_average": trainer.average is not None,
        "metrics": {k: v for k, v in row.items() if k not in ("step", "epoch") and v is not None},
    }
    objective = trainer.objective
    left_out = [name for name in trainer.model.state_dict() if not objective.stored(name)]
    write_config(folder, objective.RELEASE, objective.release_config(), released, left_out)
    return released
