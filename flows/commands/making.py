"""The verb that begins a pipeline of one's own: `new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import console


def new(
    pipeline: Annotated[str, typer.Argument(help="Name of the pipeline, e.g. rain.", show_default=False)],
    into: Annotated[Path, typer.Option(help="Checkout of Millrace that it is written into.")] = Path(),
) -> None:
    """Write a pipeline that runs: configuration, profile, a stage, flow, deployment and test, to make your own.

    For example: millrace new rain, then millrace run rain. It is found by its file flows/rain.py; docs/new_pipeline.md
    goes on from there.
    """
    from flows.commands.new import write_pipeline

    write_pipeline(console, pipeline, into)
