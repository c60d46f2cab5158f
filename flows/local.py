"""`millrace run`: a Prefect flow run in this process, with or without a server."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from configs.base import Config
from flows.pipelines import Pipeline
from flows.prefect_home import settings
from flows.runs import RunRecord, load_runs


def run_flow(
    pipeline: Pipeline, config: Config, root: Path, console: Console, *, profile: str, workers: str, deep: bool
) -> RunRecord:
    """Run a pipeline as a Prefect flow, on the root's server when one is up, else with Prefect's in-process API."""
    os.environ |= settings(root)
    os.environ |= {"MILLRACE_WORKERS": workers, "MILLRACE_DEEP": "1" if deep else "", "MILLRACE_PROFILE": profile}
    where = os.environ.get("PREFECT_API_URL")
    console.print(f"[dim]Prefect: {where or 'in-process API (millrace serve starts a dashboard)'}[/]", highlight=False)

    from flows import deployments
    from tasks.progress import Terminal

    deployments.terminals[:] = [Terminal(console)]
    state = getattr(deployments, pipeline.name)(config=config, return_state=True)
    if not state.is_completed():
        error = state.result(raise_on_failure=False)
        raise error if isinstance(error, BaseException) else ValueError(state.message)
    return load_runs(root)[0]
