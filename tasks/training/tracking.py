"""Weights & Biases behind four methods; a training neither needs it nor fails with it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from configs.training import WandbConfig
from storage.files import write_atomic
from storage.locks import FileLock
from tasks.peak_memory import peak_bytes

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
        self._sections: set[str] = set()

    def training(self, row: Mapping[str, Any]) -> None:
        """Log `train/...` over the step, and the most memory that the process has held."""
        values = {"train/loss": row["loss"], "train/gradient_norm": row["gradient_norm"]}
        values |= {f"train/{term}": value for term, value in row["terms"].items()}
        values |= {f"train/lr_{group}": value for group, value in row["learning_rates"].items()}
        values["model/memory_gb"] = _peak_bytes() / 1e9
        self._try(lambda run: self._write(run, {**values, "step": row["step"], "epoch": row["epoch"]}))

    def evaluation(self, row: Mapping[str, Any], previews: Mapping[str, bytes]) -> None:
        """Log `val/...` over the step, what has a section of its own there, and pictures as `preview/...`."""

        def log(run: Any) -> None:
            import wandb
            from PIL import Image

            named = {key: key if key in ("step", "epoch") or "/" in key else f"val/{key}" for key in row}
            values: dict[str, Any] = {named[key]: value for key, value in row.items()}
            for name, png in previews.items():
                values[f"preview/{name}"] = wandb.Image(Image.open(io.BytesIO(png)))
            self._write(run, values)

        self._try(log)

    def _write(self, run: Any, values: Mapping[str, Any]) -> None:
        """Log values over the step."""
        for section in {key.partition("/")[0] for key in values if "/" in key} - self._sections:
            run.define_metric(f"{section}/*", step_metric="step")
            self._sections.add(section)
        run.log(dict(values))

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
    stage: str,
    key: str,
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
        run = _start(config, mode, folder, stage, key, parameters, own_id=not swept)
    except Exception as error:
        say(f"W&B: {_first_line(error)}; the training goes on and logs offline below {folder}")
        try:
            run = _start(config, "offline", folder, stage, key, parameters, own_id=True)
        except Exception as second:
            say(f"W&B: {_first_line(second)}; the training goes on without it")
            return NoTracker()
    run.define_metric("step", hidden=True)
    run.define_metric("epoch", step_metric="step")
    run.summary.update(_sizes(model))
    if config.watch:
        run.watch(model, log="gradients", log_freq=100)
    return WandbTracker(run, re.sub(r"[^A-Za-z0-9_.-]", "-", run_name(None, folder, stage, key)), say)


def _start(
    config: WandbConfig,
    mode: Any,
    folder: Path,
    stage: str,
    key: str,
    parameters: Mapping[str, Any],
    *,
    own_id: bool,
) -> Any:
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    quiet = wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True, x_disable_stats=True)
    return wandb.init(
        project=config.project,
        entity=config.entity,
        name=run_name(config.name, folder, stage, key),
        tags=config.tags or None,
        group=config.group,
        config=dict(parameters),
        dir=folder,
        id=key if own_id else None,
        resume="allow" if own_id else None,
        mode=mode,
        settings=quiet,
    )


def _sizes(model: nn.Module) -> dict[str, int]:
    """Return how many parameters a model has, and how many of them are trained."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {
        "model/total_params": sum(size for size, _ in sizes),
        "model/trainable_params": sum(size for size, trained in sizes if trained),
    }


def _peak_bytes() -> int:
    """Return the most memory that this process has held: of the GPU, where one is in use."""
    if torch.cuda.is_available() and (peak := torch.cuda.max_memory_allocated()):
        return peak
    return peak_bytes()


def run_name(template: str | None, folder: Path, stage: str, key: str) -> str:
    """Return the name of the run of a training; it stays when the training is resumed."""
    if template is None:
        return f"{stage}-{key[:8]}"
    if "{" not in template:
        return template
    path = folder / "run_names.json"
    with FileLock(folder / "run_names.lock"):
        known = json.loads(path.read_bytes()) if path.exists() else {}
        if key not in known:
            known[key] = {"counter": len(known) + 1, "time": time.strftime("%Y%m%d_%H%M%S")}
            write_atomic(path, json.dumps(known, indent=1))
    return template.format(stage=stage.split()[-1], **known[key])


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
