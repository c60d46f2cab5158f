"""What a finished training leaves in its asset: the released model, its history, curves and previews."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from storage.files import write_atomic
from tasks.training.history import draw_curves
from tasks.training.loop import Trainer
from tasks.training.release import WEIGHTS, write_config, write_weights

HISTORY, CURVES, PREVIEWS = "history.json", "curves.png", "previews"


def publish(trainer: Trainer, folder: Path) -> dict[str, Any]:
    """Write the asset's files and return the stage's counts, metrics and pictures."""
    released = _release(trainer, folder)
    training, evaluation = trainer.history.rows("training"), trainer.history.rows("evaluation")
    trainer.history.publish(folder / HISTORY)
    draw_curves(training, evaluation, folder / CURVES)
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
        "loss": training[-1]["loss"],
        "samples_per_second": trainer.samples_per_second,
        "training_seconds": cursor.seconds,
    }
    of_release = {f"val/{name}": value for name, value in released["metrics"].items()}
    trainer.tracker.finish(folder, {**counts, **metrics, **of_release})
    return {
        "counts": counts,
        "metrics": {**released["metrics"], **metrics},
        "pictures": [CURVES, *_previews(trainer, folder)],
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


def _previews(trainer: Trainer, folder: Path) -> list[str]:
    """Copy the pictures of the last evaluation and return their names in the asset."""
    names = []
    for path in sorted((trainer.scratch / "previews").glob("*.png")):
        write_atomic(folder / PREVIEWS / path.name, path.read_bytes())
        names.append(f"{PREVIEWS}/{path.name}")
    return names
