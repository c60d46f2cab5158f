"""The training process (one rank of it): reads a job, trains, and writes what the stage publishes."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.training import Execution, TrainingConfig
from storage.files import write_atomic
from tasks.training.events import emit
from tasks.units import die_with_parent

PARENT = "MILLRACE_TRAINING_PARENT"  # process id whose end ends this process


class Progress:
    """Tells the launcher of steps a few times a second, and people every half minute."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._told, self._said = 0.0, time.monotonic()

    def __call__(self, step: int, steps: int, loss: float | None) -> None:
        """Note that so many steps are done; `loss` is that of a step not long ago."""
        now = time.monotonic()
        if self._first is None:
            self._first = now, step
        if now - self._told > 0.2 or step == steps:
            self._told = now
            emit("progress", done=step, total=steps)
        if now - self._said > 30 and step > self._first[1]:
            self._said = now
            left = (steps - step) * (now - self._first[0]) / (step - self._first[1])
            known = "" if loss is None else f"loss {loss:.4g}, "
            emit("message", text=f"step {step}/{steps}: {known}{_duration(left)} left")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"


def run(job: Mapping[str, Any]) -> None:
    """Train what a job describes; rank 0 writes the release and tells the facts."""
    from tasks.training.loop import Trainer
    from tasks.training.objective import make_objective
    from tasks.training.publish import publish
    from tasks.training.share import Share
    from tasks.training.tracking import start_tracker

    training = TrainingConfig.model_validate(job["training"])
    execution = Execution.model_validate(job["execution"])
    share = Share.join(execution)
    objective = make_objective(job["objective"], job["objective_config"])

    def say(text: str) -> None:
        if share.leads:
            emit("message", text=text)

    scratch = Path(job["scratch"])

    def show(name: str, png: bytes) -> None:
        path = scratch / "pictures" / f"{name}.png"
        write_atomic(path, png)
        emit("picture", name=name, path=str(path))

    progress = Progress() if share.leads else lambda step, steps, loss: None
    trainer = Trainer(objective, training, execution, share, scratch, say, progress, show)
    if share.leads:
        trainer.tracker = start_tracker(
            execution.wandb,
            folder=Path(job["wandb_folder"]),
            stage=job["stage"],
            key=job["key"],
            parameters={"objective": job["objective_config"], "training": job["training"]},
            model=trainer.model,
            say=say,
        )
    try:
        trainer.fit()
        if share.leads:
            emit("done", **publish(trainer, Path(job["folder"])))
    except BaseException:
        trainer.tracker.fail()
        raise
    share.wait()
    share.leave()


def main(path: str) -> None:
    """Run the job in a file; tell an error to the launcher and end with status 1."""
    die_with_parent(int(os.environ[PARENT]))
    warnings.filterwarnings("ignore", "grad and param do not obey the gradient layout")  # of channels-last weights
    try:
        run(json.loads(Path(path).read_bytes()))
    except Exception as error:
        emit(
            "error",
            wrong_input=isinstance(error, ValueError),
            text=str(error),
            trace=traceback.format_exc(),
        )
        sys.stdout.flush()
        os._exit(1)  # without the exit handlers of process groups, which wait for ranks that are gone


if __name__ == "__main__":
    main(sys.argv[1])
