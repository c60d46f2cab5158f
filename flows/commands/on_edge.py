"""`--engine edge`: images shown to an exported model, in the environment of llama.cpp, without torch."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console

from flows.commands.export import export_model
from storage.assets import AssetStore
from tasks.quantise.edge_process import edge_python

PROGRAM = "run.py"


def run_on_edge(console: Console, store: AssetStore, model: str | None, arguments: list[str]) -> None:
    """Let the program of an exported model do what its arguments say.

    Args:
        console: what is told to people.
        store: where models are.
        model: a folder that `millrace export` wrote; or an asset, which is exported for this once.
        arguments: as `run.py` takes them.

    Raises:
        ValueError: there is no llama.cpp, or the model cannot be exported.
        typer.Exit: the program ended with an error, which it told.
    """
    python = edge_python()
    with _exported(console, store, model) as folder:
        code = subprocess.run([str(python), str(folder / PROGRAM), *arguments], check=False).returncode
    if code:
        raise typer.Exit(code)


@contextmanager
def _exported(console: Console, store: AssetStore, model: str | None) -> Iterator[Path]:
    if model and (Path(model) / PROGRAM).is_file():
        yield Path(model)
        return
    with tempfile.TemporaryDirectory(prefix="millrace-edge-") as name:
        folder = Path(name) / "model"
        export_model(console, store, model=model, to=folder, check=False)
        yield folder
