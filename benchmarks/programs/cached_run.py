"""Runs the weather pipeline on a small sample and times its stage calls; arguments: root, engine, overrides.

A stage call is everything between `stage(...)` and its return, Prefect's task run included.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from configs.load import load_config, profile_path
from configs.weather_pipeline import WeatherConfig
from flows.commands.local import run_here
from flows.pipelines import find_pipeline
from flows.runner import run as run_pipeline
from flows.runs import RunRecord
from tasks.progress import Silent
from tasks.stage import Stage


def time_stage_calls() -> dict[str, float]:
    """Wrap every stage call of this process; the returned seconds by stage fill as they are made."""
    seconds: dict[str, float] = {}
    call = Stage.__call__

    def timed(self: Stage[Any], **arguments: Any) -> Any:
        begin = time.perf_counter()
        try:
            return call(self, **arguments)
        finally:
            seconds[self.name] = time.perf_counter() - begin

    Stage.__call__ = timed  # type: ignore[assignment, method-assign]
    return seconds


def run(engine: str, root: Path, config: WeatherConfig) -> RunRecord:
    """Run the pipeline as `millrace run` does."""
    pipeline = find_pipeline("weather")
    if engine == "inline":
        return run_pipeline(pipeline, config, root, Silent(), workers="2")
    console = Console(file=io.StringIO())
    (record,) = run_here({pipeline: config}, root, console, profile="", engine="prefect", workers="2", deep=False)
    return record


def main(task: dict[str, Any]) -> None:
    """Run once and answer with the status and seconds of each stage."""
    config = load_config(WeatherConfig, profile_path("weather", "windows"), task["overrides"])
    seconds = time_stage_calls()
    begin = time.perf_counter()
    record = run(task["engine"], Path(task["root"]), config)
    whole = time.perf_counter() - begin
    status = {stage.stage: stage.status for stage in record.stages}
    print(json.dumps({"status": status, "seconds": seconds, "whole": whole}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
