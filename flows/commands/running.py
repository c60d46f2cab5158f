"""The verbs that run pipelines, or say what a run would do: `run`, `plan`, `sweep`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from flows.commands.options import Deep, Overrides, PipelineName, ProfileName, Root, configure, console, errors, root_of
from flows.commands.tables import print_table, table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from configs.base import Config
    from flows.pipelines import Pipeline
    from tasks.session import Outcome


def run(
    pipeline: PipelineName,
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    root: Root = None,
    workers: Annotated[
        str, typer.Option(help="auto, inline, a number of processes, or a Dask scheduler's address.")
    ] = "auto",
    deep: Deep = False,
    engine: Annotated[
        Literal["prefect", "inline"],
        typer.Option(help="prefect: as a flow run, seen on the dashboard; inline: in this process, starts at once."),
    ] = "prefect",
) -> None:
    """Run a pipeline, or all of them side by side; finished stages are cache hits, interrupted ones continue.

    With `all`, overrides begin with the pipeline's name: --set weather.mae.mask_ratio=0.6. The run shows on the
    dashboard of `millrace serve` when that is up for the same root. Interrupt or kill it as you like: run it again and
    it goes on.
    """
    if swept := "WANDB_SWEEP_ID" in os.environ:
        from tasks.training.sweep import sweep_overrides

        overrides = [*(overrides or ()), *sweep_overrides()]
    from flows.commands.interruption import interruptible
    from flows.commands.local import run_here

    orders, source = configure(pipeline, profile, overrides)
    place = root_of(root)
    _announce(orders, place, profile)
    with interruptible(errors):
        records = run_here(orders, place, console, profile=source, engine=engine, workers=workers, deep=deep)
    if swept:
        from flows.commands.sweep import report_to_agent

        report_to_agent(place, records[0])
    stages = [stage for record in records for stage in record.stages]
    worked = sum(stage.status != "HIT" for stage in stages)
    more = f"; millrace show {stages[-1].asset.split('/')[0]}" if len(records) == 1 else ""
    console.print(
        f"[bold green]done[/]  {len(stages)} stages: {worked} worked, {len(stages) - worked} cached. "
        f"Next: millrace report {pipeline}{more}",
        highlight=False,
        soft_wrap=True,
    )


def plan(
    pipeline: PipelineName,
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    root: Root = None,
    deep: Deep = False,
) -> None:
    """Show what a run would do, stage by stage, and why. Runs nothing, starts nothing.

    HIT: the asset is there and verified. RESUME n/m: an interrupted run goes on. RUN: it has to be made, for the
    reason given.
    """
    from flows.runner import plan as plan_pipeline
    from tasks.progress import Terminal

    orders, _ = configure(pipeline, profile, overrides)
    for chosen, config in orders.items():
        if len(orders) > 1:
            console.print(f"[bold]{chosen.name}[/]")
        _print_plan(plan_pipeline(chosen, config, root_of(root), deep=deep, reporter=Terminal(console)))


def sweep(
    name: Annotated[
        str, typer.Argument(help="Sweep, e.g. emberformer, or a sweep file of your own.", show_default=False)
    ],
    phase: Annotated[str | None, typer.Option(help="One of the sweep's phases, e.g. 1_architecture.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all; the file's run_cap when absent.")] = None,
    overrides: Overrides = None,
    profile: Annotated[
        str | None, typer.Option("--profile", "-p", help="Profile of the trials; as in the sweep's command, else tune.")
    ] = None,
    pipeline: Annotated[str | None, typer.Option(help="Pipeline; as in the sweep's command when absent.")] = None,
    from_best: Annotated[
        list[str] | None,
        typer.Option(help="Phase whose best parameters are fixed; all earlier ones when absent. May be repeated."),
    ] = None,
    study: Annotated[str | None, typer.Option(help="Name of the study; the sweep's when absent.")] = None,
    workers: Annotated[str, typer.Option(help="As in millrace run.")] = "auto",
    root: Root = None,
) -> None:
    """Search for the best settings on this machine. Kill it as you like: run it again and it goes on.

    For example: millrace sweep emberformer --phase 1_architecture --trials 10 --set source.path=/data/fires. Each
    trial is a run of the pipeline, whose data stages come from the cache. The next phase takes over the best of those
    before it. The same file serves wandb sweep and wandb agent.
    """
    from flows.commands.interruption import interruptible
    from flows.commands.sweep import search

    place = root_of(root)
    with interruptible(errors):
        search(
            console,
            place,
            name,
            phase=phase,
            pipeline=pipeline,
            profile=profile,
            trials=trials,
            overrides=overrides or (),
            from_best=from_best,
            study=study,
            workers=workers,
        )


def _announce(orders: dict[Pipeline, Config], root: Path, profile: str) -> None:
    """Say where the pages will be, and how long it takes where the profile tells."""
    from configs.load import profile_minutes, profile_path

    minutes = [profile_minutes(profile_path(p.name, profile)) for p in orders]
    known = [m for m in minutes if m is not None]
    about = "about" if len(orders) == 1 else "at most about"  # side by side they are quicker
    long = (
        f"{about} {sum(known):g} minutes on two cores where nothing is cached; " if len(known) == len(minutes) else ""
    )
    pages = ", ".join(str(p.page(root)) for p in orders)
    which = next(iter(orders)).name if len(orders) == 1 else "all"
    console.print(f"[dim]{long}millrace report {which} then writes {pages}[/]", highlight=False, soft_wrap=True)


def _print_plan(outcomes: Sequence[Outcome]) -> None:
    from tasks.progress import STYLES

    rows = table("", "stage", "asset", "why")
    for outcome in outcomes:
        asset = f"{outcome.asset.kind}/{outcome.asset.key[:12]}" if outcome.asset else ""
        rows.add_row(f"[{STYLES[outcome.status]}]{outcome.label}[/]", outcome.stage, asset, escape(outcome.reason))
    print_table(console, rows)
