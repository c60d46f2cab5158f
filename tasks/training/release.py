"""Released models: `model.safetensors` beside a `config.json` that says how to build the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from storage.checkpoints import load_weights, save_weights
from storage.files import write_atomic
from tasks.training.objective import Objective

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def write_weights(path: Path, objective: Objective, model: nn.Module) -> None:
    """Write all entries of the model's state that belong into a release."""
    save_weights(path, {name: t for name, t in model.state_dict().items() if objective.stored(name)})


def write_config(folder: Path, objective: Objective, model: nn.Module, weights: Mapping[str, Any]) -> None:
    """Write `config.json`: `model` from the objective, `weights` about where in the training they are from."""
    left_out = sorted(name for name in model.state_dict() if not objective.stored(name))
    content = {"model": objective.release_config(), "weights": dict(weights), "left_out": left_out}
    write_atomic(folder / CONFIG, json.dumps(content, indent=1, sort_keys=True) + "\n")


def load_released(folder: Path, build: Callable[[Mapping[str, Any]], nn.Module]) -> tuple[nn.Module, dict[str, Any]]:
    """Return a released model in evaluation mode on the CPU, and the whole of its `config.json`.

    `build` makes the model from the `model` part of `config.json`, which is what `Objective.release_config` returned.
    """
    try:
        config = json.loads((folder / CONFIG).read_text())
    except FileNotFoundError:
        raise ValueError(f"{folder} is no released model: it has no {CONFIG}") from None
    model = build(config["model"])
    load_weights(folder / WEIGHTS, model, frozenset(config["left_out"]))
    return model.eval(), config
