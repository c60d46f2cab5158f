"""What several verbs share: their options, the consoles, and how a root and a configuration are found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.commands.tables import output_console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from configs.base import Config
    from flows.pipelines import Pipeline
    from storage.assets import AssetStore

console = output_console()
errors = Console(stderr=True)

PipelineName = Annotated[
    str, typer.Argument(help="Pipeline, e.g. weather; all of them, side by side, with `all`.", show_default=False)
]
ProfileName = Annotated[
    str, typer.Option("--profile", "-p", help="Profile of the pipeline (demo, full, …) or a YAML file of your own.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="Override a field, e.g. --set source.days=10. May be repeated.", metavar="A.B=C"),
]
Root = Annotated[
    str | None,
    typer.Option(
        "--root",
        "-r",
        help="Where assets live: a folder, or s3://bucket/prefix.",
        envvar="MILLRACE_ROOT",
        show_default="assets",
    ),
]
Deep = Annotated[bool, typer.Option("--deep", help="Compare every byte (SHA-256), not only existence and size.")]


def configure(pipeline: str, profile: str, overrides: Sequence[str] | None) -> tuple[dict[Pipeline, Config], str]:
    """Return what is to be run with which configuration, and the profile's name, or its path where it is a file."""
    from configs.load import load_config, profile_path
    from flows.pipelines import ALL, find_pipelines

    chosen = find_pipelines(pipeline)
    of_pipeline: dict[str, list[str]] = {p.name: [] for p in chosen}
    for override in overrides or ():
        name, _, rest = override.partition(".") if pipeline == ALL else (pipeline, "", override)
        if name not in of_pipeline:
            raise ValueError(f"--set {override}: with {ALL}, begin with a pipeline's name: {', '.join(of_pipeline)}")
        of_pipeline[name].append(rest)
    paths = {p: profile_path(p.name, profile) for p in chosen}
    name = str(paths[chosen[0]]) if profile.endswith((".yaml", ".yml")) else profile
    return {p: load_config(p.config, path, of_pipeline[p.name]) for p, path in paths.items()}, name


def root_of(root: str | None) -> Path:
    """Return the folder of a root that was given, or of the usual one."""
    from flows.runner import default_root, root_folder

    return root_folder(root) if root else default_root()


def store_of(root: str | None) -> AssetStore:
    """Return the store in a root that was given, or in the usual one."""
    from storage.stores import open_store

    return open_store(root_of(root))
