"""The verbs that show a root in a browser: `serve`, `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import PipelineName, Root, console, root_of, store_of


def serve(
    root: Root = None,
    port: Annotated[int, typer.Option(help="Port of the dashboard and its API.")] = 4200,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    workers: Annotated[
        str, typer.Option(help="Where units of deployment runs work: auto, inline, a number, or a Dask address.")
    ] = "auto",
) -> None:
    """Start the Prefect server with its dashboard, a process worker, and all deployments. Ctrl-C ends them."""
    from flows.commands.serve import serve_all

    serve_all(console, root_of(root), host=host, port=port, workers=workers)


def report(
    pipeline: PipelineName,
    root: Root = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where the HTML page goes.")] = None,
) -> None:
    """Write one self-contained HTML page: stages, pictures, tables, lineage and run history."""
    from flows.commands.report import write_report
    from flows.pipelines import find_pipelines

    store, pipelines = store_of(root), find_pipelines(pipeline)
    if output and len(pipelines) > 1:
        raise ValueError(f"--output {output}: {pipeline} makes a page for each pipeline; name one, or leave it out")
    for chosen in pipelines:
        console.print(f"report: {write_report(store, chosen, output)}", highlight=False, soft_wrap=True)
