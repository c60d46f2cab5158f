"""The `millrace` command line. Heavy imports wait until a verb needs them, so that `--help` is quick."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer
from rich.markup import escape

from flows.commands.asking import ask, evaluate, narrate, predict_fire
from flows.commands.keeping import gc, pin, reap, show, status, verify
from flows.commands.making import new
from flows.commands.options import errors
from flows.commands.pulling import models
from flows.commands.running import plan, run, sweep
from flows.commands.seeing import caption, chat, export
from flows.commands.showing import report, serve
from storage.files import OF_THE_DISK, OF_THE_PLACE
from storage.space import refusal

app = typer.Typer(
    help=(
        "Turn raw weather, wildfire and image-text data into trained, evaluated and quantised models.\n\n"
        "Every stage is cached by content and continues where it was killed. Start with [bold]millrace plan weather"
        "[/bold] (what would run, and why), then [bold]millrace run weather[/bold]. Assets live in ./assets, in "
        "--root, or in MILLRACE_ROOT."
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS = (
    run, plan, sweep, status, show, verify, pin, gc, reap, serve, predict_fire, narrate, caption, chat, ask,
    export, evaluate, report, new,
)  # fmt: skip
for verb in VERBS:
    app.command()(verb)
app.add_typer(models, name="models")


def main() -> None:
    """Run the command line; bad input ends in one sentence and exit code 2, a killed worker or a full disk in 1."""
    try:
        check_packages()
        app()
    except (ValueError, OSError) as error:
        number = error.errno if isinstance(error, OSError) else None
        of_the_disk = number in (*OF_THE_DISK, *OF_THE_PLACE)
        is_expected = isinstance(error, ValueError | ChildProcessError) or of_the_disk
        if not is_expected or os.environ.get("MILLRACE_TRACEBACK"):
            raise
        told = refusal(error) if isinstance(error, OSError) and of_the_disk else str(error)
        errors.print("[bold red]error:[/]", escape(told), highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, ValueError) or number in OF_THE_PLACE else 1)


def check_packages() -> None:
    """Refuse to work when the working directory's own `tasks/`, `storage/`, … hide ours."""
    from importlib.util import find_spec

    ours = Path(__file__).resolve().parents[2]
    for name in ("tasks", "storage", "models", "configs"):
        spec = find_spec(name)
        places = [Path(p).resolve() for p in (spec.submodule_search_locations or [])] if spec else []
        if ours / name not in places[:1]:
            where = places[0] if places else "nowhere"
            raise ValueError(
                f"the package {name!r} is found at {where} instead of {ours / name}: a folder of that name is in the "
                f"way; run millrace from another working directory, e.g. {ours}, or clear PYTHONPATH"
            )
