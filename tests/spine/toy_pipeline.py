"""The toy stages as a pipeline with run records; as a program: `ROOT PROFILE [FIELD=VALUE]...`."""

from __future__ import annotations

import sys
from pathlib import Path

from configs.base import Config
from flows.pipelines import Pipeline
from flows.runner import plan, run
from flows.runs import RunRecord
from tasks.progress import Silent
from tasks.session import Outcome


class ToyConfig(Config):
    """What the toy stages are called with."""

    count: int = 4
    modulus: int = 1000
    text: str = "sum"


def wire(config: ToyConfig) -> None:
    """Wire the stages."""
    from tests.spine import toy

    numbers = toy.squares(count=config.count, first=0)
    toy.label(value=toy.total(numbers=numbers, modulus=config.modulus), text=config.text)


TOY = Pipeline("toy", "Squares and their sum", ToyConfig, wire)


def run_toy(root: Path, profile: str = "demo", **fields: object) -> RunRecord:
    """Run the pipeline as `millrace run` does."""
    return run(TOY, ToyConfig.model_validate(fields), root, Silent(), profile=profile, workers="inline")


def plan_toy(root: Path, **fields: object) -> dict[str, Outcome]:
    """Plan the pipeline as `millrace plan` does; return outcomes by stage."""
    return {outcome.stage: outcome for outcome in plan(TOY, ToyConfig.model_validate(fields), root)}


if __name__ == "__main__":
    root, profile, *settings = sys.argv[1:]
    run_toy(Path(root), profile, **dict(setting.split("=") for setting in settings))
