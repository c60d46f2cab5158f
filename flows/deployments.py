"""The pipelines as Prefect flows: the entry points of `prefect.yaml` and of `millrace run`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

from prefect import State, flow
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled, Completed, Failed

from configs.base import Config
from configs.image_text import ImageTextConfig
from configs.weather_pipeline import WeatherConfig
from configs.wildfire import WildfireConfig
from flows.pipelines import PIPELINES, Pipeline
from flows.runner import default_root, run
from flows.runs import INTERRUPTED
from tasks.progress import Both
from tasks.session import Reporter
from tasks.stage import dashboard_reporter


def run_in_flow(pipeline: Pipeline, config: Config) -> State:
    """Run a pipeline inside a Prefect flow run; bad input is a failed state with one sentence, not a traceback."""
    watcher = _watcher.get()
    reporters = [dashboard_reporter(), *([watcher] if watcher else [])]
    try:
        record = run(
            pipeline,
            config,
            default_root(),
            Both(reporters),
            engine="prefect",
            workers=os.environ.get("MILLRACE_WORKERS", "auto"),
            deep=os.environ.get("MILLRACE_DEEP") == "1",
            profile=os.environ.get("MILLRACE_PROFILE") or deployment.name or "",
            flow_run_id=str(flow_run.id),
        )
    except ValueError as error:
        return Failed(message=str(error), data=error)
    except KeyboardInterrupt:
        return Cancelled(message=INTERRUPTED)
    worked = sum(stage.status != "HIT" for stage in record.stages)
    return Completed(message=f"{len(record.stages)} stages, {worked} worked, {len(record.stages) - worked} cached")


_watcher: ContextVar[Reporter | None] = ContextVar("millrace_watcher", default=None)


@contextlib.contextmanager
def watched_by(reporter: Reporter) -> Iterator[None]:
    """Let a reporter see what the dashboard sees of the flows that are called in the block."""
    token = _watcher.set(reporter)
    try:
        yield
    finally:
        _watcher.reset(token)


@flow(name="weather", persist_result=False)
def weather(config: WeatherConfig) -> State:
    """Raw ERA5 NetCDF to verified training windows."""
    return run_in_flow(PIPELINES["weather"], config)


@flow(name="wildfire", persist_result=False)
def wildfire(config: WildfireConfig) -> State:
    """Raw fire archives to trained and judged spread models."""
    return run_in_flow(PIPELINES["wildfire"], config)


@flow(name="microvlm", persist_result=False)
def microvlm(config: ImageTextConfig) -> State:
    """Image URLs with captions to verified WebDataset shards."""
    return run_in_flow(PIPELINES["microvlm"], config)


@flow(name="trm_vlm", persist_result=False)
def trm_vlm(config: ImageTextConfig) -> State:
    """Image URLs with questions to verified WebDataset shards."""
    return run_in_flow(PIPELINES["trm_vlm"], config)
