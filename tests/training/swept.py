"""A program that `wandb agent` starts in a test: it writes what the agent wants and logs as a training does."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from torch import nn

from configs.training import WandbConfig
from tasks.training.sweep import report_cached, sweep_overrides
from tasks.training.tracking import start_tracker


def main(out: str) -> None:
    overrides = sweep_overrides()
    names = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_PROJECT")
    about = {"overrides": overrides, "arguments": sys.argv[2:], **{name: os.environ.get(name) for name in names}}
    folder = Path(out)
    (folder / f"{os.environ['WANDB_RUN_ID']}.json").write_text(json.dumps(about))
    os.environ["WANDB_MODE"] = "offline"
    config = WandbConfig(project="another")
    place = {"folder": folder / "runs", "stage": "a training", "key": "another"}
    tracker = start_tracker(config, **place, parameters={"seed": 1}, model=nn.Identity(), say=print)
    tracker.evaluation({"step": 3, "epoch": 1, "f1": 0.75}, {})
    for name in ("model.safetensors", "config.json"):
        (folder / name).write_text("{}")
    tracker.finish(folder, {"val/f1": 0.75})
    report_cached({"f1": 0.5}, folder / "cached")


if __name__ == "__main__":
    main(sys.argv[1])
