"""`millrace run`: pipelines in this process, one or several at once, as Prefect flow runs or without Prefect."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from configs.base import Config
from flows.commands.prefect_home import settings
from flows.commands.serve import start_temporary_api
from flows.pipelines import Pipeline
from flows.runner import Engine, plan, run
from flows.runs import RunRecord, load_runs
from storage.files import is_writable
from storage.stores import open_store
from tasks.progress import Bars, Terminal
from tasks.session import Outcome
from tasks.stage import in_threads
from tasks.training import launch
from tasks.units import cores


def run_here(
    orders: Mapping[Pipeline, Config],
    root: Path,
    console: Console,
    *,
    profile: str,
    engine: Engine,
    workers: str,
    deep: bool,
) -> list[RunRecord]:
    """Run pipelines, as many at once as there are cores; return their records, in order.

    With Prefect they are flow runs, on the root's server when one is up, else with an API that lives as long as this
    process, which is not worth its start where everything is cached. Where a pipeline cannot go on, the others do; its
    error is raised in the end.
    """
    if len(orders) > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # what runs side by side shares the cores
    bars = Bars(console)
    terminals = {p.name: Terminal(console, p.name if len(orders) > 1 else "", bars) for p in orders}
    if is_writable(root):
        root.mkdir(parents=True, exist_ok=True)  # the plan below keeps there what it reads of the code
    else:
        engine = "inline"
        told = f"{root} is read-only: nothing can be recorded there, so the run has no record and goes without Prefect"
        console.print(escape(told), style="yellow", highlight=False, soft_wrap=True)
    expected = [] if deep else _expected(orders, root)  # reading every file twice would be too much
    if engine == "prefect":
        os.environ |= settings(root)
        if expected and "PREFECT_API_URL" not in os.environ and all(outcome.status == "HIT" for outcome in expected):
            engine = "inline"
            console.print("[dim]Prefect: not started, everything is cached[/]", highlight=False)
        else:
            _start_prefect(console, profile=profile, workers=workers, deep=deep)
    if needed := {name: None for outcome in expected if outcome.status != "HIT" for name in outcome.trains}:
        launch.prepare(needed)

    def carry_out(pipeline: Pipeline) -> RunRecord:
        config, terminal = orders[pipeline], terminals[pipeline.name]
        if engine == "prefect":
            return _run_as_flow(pipeline, config, root, terminal)
        return run(pipeline, config, root, terminal, profile=profile, workers=workers, deep=deep)

    if len(orders) == 1:
        return [carry_out(pipeline) for pipeline in orders]
    failures: dict[str, ValueError] = {}

    def attempt(pipeline: Pipeline) -> RunRecord | None:
        try:
            return carry_out(pipeline)
        except ValueError as error:
            failures[pipeline.name] = error
            return None

    records = in_threads([partial(attempt, pipeline) for pipeline in orders], max(2, cores()))
    if failures:
        raise ValueError("; ".join(f"{name}: {error}" for name, error in failures.items()))
    return records


def _expected(orders: Mapping[Pipeline, Config], root: Path) -> list[Outcome]:
    """Return what the stages of all pipelines will do; nothing where a pipeline cannot go on, as its run will say."""
    try:
        return [outcome for pipeline, config in orders.items() for outcome in plan(pipeline, config, root)]
    except (ValueError, OSError):
        return []


def _start_prefect(console: Console, *, profile: str, workers: str, deep: bool) -> None:
    """Set Prefect up, with an API of this process where the root has no server."""
    os.environ |= {"MILLRACE_WORKERS": workers, "MILLRACE_DEEP": "1" if deep else "", "MILLRACE_PROFILE": profile}
    where = os.environ.get("PREFECT_API_URL")
    console.print(
        f"[dim]Prefect: {where or 'API of this run alone (millrace serve starts a dashboard)'}[/]", highlight=False
    )
    if where:
        _greet_prefect(where)
    else:
        start_temporary_api()


def _greet_prefect(where: str) -> None:
    """See to it that a server answers."""
    from httpx import HTTPError
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            client.hello()
    except HTTPError as error:
        raise ValueError(
            f"the Prefect server at {where} does not answer ({error}); start it again with millrace serve, unset "
            "PREFECT_API_URL, or run with --engine inline"
        ) from None


def _run_as_flow(pipeline: Pipeline, config: Config, root: Path, terminal: Terminal) -> RunRecord:
    from flows.deployments import flow_of

    state = flow_of(pipeline, terminal)(config=config, return_state=True)
    if state.is_cancelled():
        raise KeyboardInterrupt
    if not state.is_completed():
        error = state.result(raise_on_failure=False)
        raise error if isinstance(error, BaseException) else ValueError(state.message)
    flow_run_id = str(state.state_details.flow_run_id)
    return next(record for record in load_runs(open_store(root)) if record.flow_run_id == flow_run_id)
