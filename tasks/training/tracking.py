"""Weights & Biases behind four methods; a training neither needs it nor fails with it."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from configs.training import WandbConfig

IN_KEY = False

SWEEP_VARIABLE = "WANDB_SWEEP_ID"


class Tracker(Protocol):
    """Where the numbers of a training go besides its history."""

    def training(self, row: Mapping[str, Any]) -> None:
        """Log a row of the training history."""

    def evaluation(self, row: Mapping[str, Any], previews: Mapping[str, bytes]) -> None:
        """Log an evaluation and its pictures."""

    def finish(self, folder: Path, summary: Mapping[str, Any]) -> None:
        """Log the released model and end the run."""

    def fail(self) -> None:
        """End the run as failed."""


class NoTracker:
    """Logs nothing."""

    def training(self, row: Mapping[str, Any]) -> None:
        """Log nothing."""

    def evaluation(self, row: Mapping[str, Any], previews: Mapping[str, bytes]) -> None:
        """Log nothing."""

    def finish(self, folder: Path, summary: Mapping[str, Any]) -> None:
        """Log nothing."""

    def fail(self) -> None:
        """Log nothing."""


class WandbTracker:
    """Logs to a W&B run; an error of W&B is told once and ends the logging, never the training."""

    def __init__(self, run: Any, name: str, say: Callable[[str], None]) -> None:
        self._run, self._name, self._say = run, name, say

    def training(self, row: Mapping[str, Any]) -> None:
        """Log `train/...` over the step."""
        values = {"train/loss": row["loss"], "train/gradient_norm": row["gradient_norm"]}
        values |= {f"train/{term}": value for term, value in row["terms"].items()}
        values |= {f"train/lr_{group}": value for group, value in row["learning_rates"].items()}
        self._try(lambda run: run.log({**values, "step": row["step"], "epoch": row["epoch"]}))

    def evaluation(self, row: Mapping[str, Any], previews: Mapping[str, bytes]) -> None:
        """Log `val/...` over the step, and pictures as `preview/...`."""

        def log(run: Any) -> None:
            import wandb
            from PIL import Image

            values: dict[str, Any] = {k if k in ("step", "epoch") else f"val/{k}": v for k, v in row.items()}
            for name, png in previews.items():
                values[f"preview/{name}"] = wandb.Image(Image.open(io.BytesIO(png)))
            run.log(values)

        self._try(log)

    def finish(self, folder: Path, summary: Mapping[str, Any]) -> None:
        """Log the model as an artifact, the summary, and end the run."""

        def log(run: Any) -> None:
            import wandb

            artifact = wandb.Artifact(self._name, type="model", metadata=dict(summary))
            for name in ("model.safetensors", "config.json"):
                artifact.add_file(str(folder / name))
            run.log_artifact(artifact)
            run.summary.update(dict(summary))
            run.finish()

        self._try(log)

    def fail(self) -> None:
        """End the run as failed."""
        self._try(lambda run: run.finish(exit_code=1))

    def _try(self, action: Callable[[Any], None]) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:
            run, self._run = self._run, None
            self._say(f"W&B: {_first_line(error)}; the training goes on without it")
            with contextlib.suppress(Exception):
                run.finish(exit_code=1)


def start_tracker(
    config: WandbConfig,
    *,
    folder: Path,
    run_id: str,
    name: str,
    parameters: Mapping[str, Any],
    model: nn.Module,
    say: Callable[[str], None],
) -> Tracker:
    """Start or continue a W&B run; where that fails, say so and log offline, or not at all.

    Under `wandb agent` the run belongs to the sweep: its id, project and entity come from the agent, and it is online
    unless WANDB_MODE says otherwise, because the sweep's server waits for the metric.
    """
    if config.mode == "disabled":
        return NoTracker()
    swept = SWEEP_VARIABLE in os.environ
    try:
        mode = None if swept else config.mode
        run = _start(config, mode, folder, None if swept else run_id, name, parameters)
    except Exception as error:
        say(f"W&B: {_first_line(error)}; the training goes on and logs offline below {folder}")
        try:
            run = _start(config, "offline", folder, run_id, name, parameters)
        except Exception as second:
            say(f"W&B: {_first_line(second)}; the training goes on without it")
            return NoTracker()
    run.define_metric("step", hidden=True)
    for pattern in ("train/*", "val/*", "preview/*", "epoch"):
        run.define_metric(pattern, step_metric="step")
    if config.watch:
        run.watch(model, log="gradients", log_freq=100)
    return WandbTracker(run, re.sub(r"[^A-Za-z0-9_.-]", "-", name), say)


def _start(
    config: WandbConfig, mode: Any, folder: Path, run_id: str | None, name: str, parameters: Mapping[str, Any]
) -> Any:
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    quiet = wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True, x_disable_stats=True)
    return wandb.init(
        project=config.project,
        entity=config.entity,
        name=config.name or name,
        tags=config.tags or None,
        group=config.group,
        config=dict(parameters),
        dir=folder,
        id=run_id,
        resume="allow" if run_id else None,
        mode=mode,
        settings=quiet,
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
