"""The pipelines as Prefect flows: `flows/deployments.py:NAME` is the flow of a pipeline, as `prefect.yaml` names it."""

from __future__ import annotations

import os
from typing import Any

from prefect import Flow, State, flow
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled, Completed, Failed

from configs.base import Config
from flows.pipelines import Pipeline, find_pipeline, pipeline_names
from flows.runner import default_root, run
from flows.runs import INTERRUPTED
from tasks.progress import Both
from tasks.session import Reporter
from tasks.stage import dashboard_reporter


def __getattr__(name: str) -> Flow[Any, State]:
    """Make the flow of a pipeline when it is asked for, so that a new pipeline needs no line here."""
    if name not in pipeline_names():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return flow_of(find_pipeline(name))


def flow_of(pipeline: Pipeline, *watchers: Reporter) -> Flow[Any, State]:
    """Return the flow of a pipeline; what the dashboard sees, the watchers see too."""

    def in_flow(config: Any) -> State:
        return _run_in_flow(pipeline, config, watchers)

    in_flow.__annotations__ = {"config": pipeline.config, "return": State}  # what Prefect draws the form from
    return flow(name=pipeline.name, description=pipeline.title, persist_result=False)(in_flow)


def _run_in_flow(pipeline: Pipeline, config: Config, watchers: tuple[Reporter, ...]) -> State:
    """Run a pipeline inside a Prefect flow run; bad input is a failed state with one sentence, not a traceback."""
    try:
        record = run(
            pipeline,
            config,
            default_root(),
            Both([dashboard_reporter(), *watchers]),
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
