"""The `millrace` command line. Heavy imports wait until a verb needs them, so that `--help` is quick."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from flows.tables import output_console, print_table, table
from storage.files import OUT_OF_SPACE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from configs.base import Config
    from flows.pipelines import Pipeline
    from storage.assets import AssetStore
    from tasks.session import Outcome

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
OF_THE_DISK = (*OUT_OF_SPACE, errno.EROFS, errno.EACCES)
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
AssetName = Annotated[
    str, typer.Argument(help="kind (its newest), kind/key, the start of a key, or a folder.", show_default=False)
]


def main() -> None:
    """Run the command line; bad input ends in one sentence and exit code 2, a killed worker or a full disk in 1."""
    try:
        check_packages()
        app()
    except (ValueError, OSError) as error:
        is_expected = isinstance(error, ValueError | ChildProcessError) or error.errno in OF_THE_DISK
        if not is_expected or os.environ.get("MILLRACE_TRACEBACK"):
            raise
        errors.print("[bold red]error:[/]", escape(str(error)), highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, ValueError) else 1)


def check_packages() -> None:
    """Refuse to work when the working directory's own `tasks/`, `storage/`, … hide ours."""
    from importlib.util import find_spec

    ours = Path(__file__).resolve().parent.parent
    for name in ("tasks", "storage", "models", "configs"):
        spec = find_spec(name)
        places = [Path(p).resolve() for p in (spec.submodule_search_locations or [])] if spec else []
        if ours / name not in places[:1]:
            where = places[0] if places else "nowhere"
            raise ValueError(
                f"the package {name!r} is found at {where} instead of {ours / name}: a folder of that name is in the "
                f"way; run millrace from another working directory, e.g. {ours}, or clear PYTHONPATH"
            )


@app.command()
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
    from flows.interruption import interruptible
    from flows.local import run_here

    orders, source = _configure(pipeline, profile, overrides)
    place = _root(root)
    _announce(orders, place, profile)
    with interruptible(errors):
        records = run_here(orders, place, console, profile=source, engine=engine, workers=workers, deep=deep)
    if swept:
        from flows.sweep import report_to_agent

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


@app.command()
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

    orders, _ = _configure(pipeline, profile, overrides)
    for chosen, config in orders.items():
        if len(orders) > 1:
            console.print(f"[bold]{chosen.name}[/]")
        _print_plan(plan_pipeline(chosen, config, _root(root), deep=deep, reporter=Terminal(console)))


@app.command()
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
    from flows.interruption import interruptible
    from flows.sweep import search

    place = _root(root)
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


@app.command()
def status(root: Root = None) -> None:
    """List runs, assets, unfinished workspaces and pins."""
    from flows.views import print_status

    print_status(console, _store(root))


@app.command()
def show(asset: AssetName, root: Root = None) -> None:
    """Show an asset's manifest and its lineage, up to the raw files."""
    from flows.views import print_asset

    print_asset(console, _store(root), asset)


@app.command()
def verify(
    asset: Annotated[str | None, typer.Argument(help="An asset; all of them when absent.")] = None,
    root: Root = None,
    deep: Deep = False,
) -> None:
    """Compare assets on disk with their manifests; every damage is named. Exit code 1 when there is any."""
    from flows.views import print_verification

    if not print_verification(console, _store(root), asset, deep=deep):
        raise typer.Exit(1)


@app.command()
def pin(
    asset: AssetName,
    note: Annotated[str, typer.Option(help="Why it must stay.")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Take the pin off again.")] = False,
    root: Root = None,
) -> None:
    """Keep an asset, and what it was made from, through every gc."""
    store = _store(root)
    target = store.find(asset)
    if remove:
        store.unpin(target)
    else:
        store.pin(target, note)
    console.print(f"{'unpinned' if remove else 'pinned'} {target.kind}/{target.key}", highlight=False)


@app.command()
def gc(
    root: Root = None,
    age: Annotated[int, typer.Option(min=0, help="Days for which everything stays; at most 90.")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove assets and unfinished work that are old and that nothing leads to; never what is in use.

    Of every pipeline and profile, what the newest run and the newest finished run lead to stays, however old; so does
    what any run of the last days (--age) led to, what is pinned, and all that these were made from.
    """
    from flows.gc import collect_garbage

    collect_garbage(console, _store(root), days=age, dry_run=dry_run, ask=not yes)


@app.command()
def reap(root: Root = None) -> None:
    """Mark runs whose process is dead as Crashed, in the run records and on the dashboard."""
    from flows.reap import reap_runs

    reap_runs(console, _root(root))


@app.command()
def serve(
    root: Root = None,
    port: Annotated[int, typer.Option(help="Port of the dashboard and its API.")] = 4200,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    workers: Annotated[
        str, typer.Option(help="Where units of deployment runs work: auto, inline, a number, or a Dask address.")
    ] = "auto",
) -> None:
    """Start the Prefect server with its dashboard, a process worker, and all deployments. Ctrl-C ends them."""
    from flows.serve import serve_all

    serve_all(console, _root(root), host=host, port=port, workers=workers)


@app.command()
def predict_fire(
    sequence: Annotated[
        str, typer.Argument(help="Name or number of the fire: sequence_012 or 12.", show_default=False)
    ],
    model: Annotated[
        str | None,
        typer.Option(help="A trained model: asset, key or folder; the newest data's best on validation when absent."),
    ] = None,
    archive: Annotated[
        str | None,
        typer.Option(help="Archive with the fire; the one that the model was trained on when absent."),
    ] = None,
    start: Annotated[
        int | None,
        typer.Option("--from", min=0, help="Last frame that is known; the record's last frame when absent."),
    ] = None,
    ahead: Annotated[int, typer.Option(min=1, max=48, help="Frames to predict, each from the one before.")] = 1,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")] = Path("predictions"),
    root: Root = None,
) -> None:
    """Predict how a fire goes on: a georeferenced GeoTIFF and a picture per frame, and scores where the truth is known.

    For example: millrace predict-fire 12 --from 3 --ahead 3. An archive given by --archive is decoded and cached first.
    """
    from flows.predict_fire import predict_sequence

    predict_sequence(
        console,
        _store(root),
        model=model,
        archive=archive,
        sequence=sequence,
        start=start,
        ahead=ahead,
        output=output,
    )


@app.command()
def narrate(
    day: Annotated[str, typer.Option("--date", help="UTC date, e.g. 2024-03-15.", show_default=False)],
    region: Annotated[
        str | None, typer.Option(help="Tell about this region only; about every known one in sight when absent.")
    ] = None,
    anchor: Annotated[
        str | None,
        typer.Option(help="Which step's date names a window: first, middle or last; as in training when absent."),
    ] = None,
    max_samples: Annotated[int, typer.Option(min=1, max=512, help="Most texts.")] = 6,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token each time.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Mass of the tokens that are drawn from.")] = 0.9,
    max_new_tokens: Annotated[int, typer.Option(min=4, max=4096, help="Longest text.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same texts.")] = 0,
    model: Annotated[
        str | None,
        typer.Option(help="A trained narrator: asset, key or folder; the newest data's likeliest when absent."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")] = Path("narratives"),
    root: Root = None,
) -> None:
    """Tell the weather of a date in words: a text per region with its map, checked against the fields.

    For example: millrace narrate --date 2024-03-15 --region "North Sea".
    """
    from configs.weather_lm import NarrationEvaluation
    from flows.narrate import narrate_date, parse_date
    from tasks.narration.narrate import Request

    if anchor not in (None, "first", "middle", "last"):
        raise ValueError(f"--anchor {anchor!r} must be first, middle or last")
    narrate_date(
        console,
        _store(root),
        model=model,
        request=Request(parse_date(day), region, anchor, max_samples),  # type: ignore[arg-type]
        writing=NarrationEvaluation(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed),
        output=output,
    )


@app.command()
def report(
    pipeline: PipelineName,
    root: Root = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where the HTML page goes.")] = None,
) -> None:
    """Write one self-contained HTML page: stages, pictures, tables, lineage and run history."""
    from flows.pipelines import find_pipelines
    from flows.report import write_report

    store, pipelines = _store(root), find_pipelines(pipeline)
    if output and len(pipelines) > 1:
        raise ValueError(f"--output {output}: {pipeline} makes a page for each pipeline; name one, or leave it out")
    for chosen in pipelines:
        console.print(f"report: {write_report(store, chosen, output)}", highlight=False, soft_wrap=True)


def _configure(pipeline: str, profile: str, overrides: Sequence[str] | None) -> tuple[dict[Pipeline, Config], str]:
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


def _root(root: str | None) -> Path:
    from flows.runner import default_root, root_folder

    return root_folder(root) if root else default_root()


def _store(root: str | None) -> AssetStore:
    from storage.stores import open_store

    return open_store(_root(root))


def _print_plan(outcomes: Sequence[Outcome]) -> None:
    from tasks.progress import STYLES

    rows = table("", "stage", "asset", "why")
    for outcome in outcomes:
        asset = f"{outcome.asset.kind}/{outcome.asset.key[:12]}" if outcome.asset else ""
        rows.add_row(f"[{STYLES[outcome.status]}]{outcome.label}[/]", outcome.stage, asset, escape(outcome.reason))
    print_table(console, rows)
