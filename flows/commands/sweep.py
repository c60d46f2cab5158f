"""`millrace sweep`: a search over a pipeline's settings on this machine; and runs that `wandb agent` starts."""

from __future__ import annotations

import argparse
import json
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.markup import escape

from configs.base import Config
from configs.load import apply_override, load_config, parse_override, profile_path, read_profile
from flows.commands.tables import print_table, table
from flows.pipelines import Pipeline, find_pipeline
from flows.runner import plan, run
from flows.runs import RunRecord
from storage.assets import Asset, AssetStore
from storage.hashing import digest
from storage.stores import open_store
from tasks.keys import named
from tasks.progress import Silent, Terminal
from tasks.session import Outcome, Session
from tasks.training.launch import TrainingError
from tasks.training.sweep import (
    StudyResult,
    Sweep,
    as_overrides,
    best_parameters,
    phases,
    read_sweep,
    report_cached,
    run_study,
)

SWEEPS = Path(__file__).parents[2] / "configs" / "sweeps"


class SweepError(Exception):
    """A fault that has nothing to do with a trial's parameters; holds the `ValueError` that says what it is."""


@dataclass(frozen=True)
class Target:
    """What each trial runs."""

    pipeline: Pipeline
    profile: Path
    root: Path
    workers: str
    fixed: Mapping[str, Any]
    """Values of --set and of the best trials of other phases."""

    def config(self, parameters: Mapping[str, Any]) -> Config:
        """Return the configuration of a trial."""
        return load_config(self.pipeline.config, self.profile, as_overrides(parameters))

    def idle(self, parameters: Mapping[str, Any]) -> frozenset[str]:
        """Return the settings that change nothing beside these parameters."""
        try:
            return self.config(parameters).idle()
        except ValueError:  # the trial will say why it is refused
            return frozenset()

    def basis(self, sweep: Sweep) -> dict[str, Any]:
        """Return all settings that trials have in common, except those of how the work is carried out."""
        values = read_profile(self.profile)
        for name, value in {**sweep.fixed, **self.fixed}.items():
            apply_override(values, name, value)
        for name, field in self.pipeline.config.model_fields.items():
            if not getattr(field.annotation, "IN_KEY", True):
                values.pop(name, None)
        return {"pipeline": self.pipeline.name, "config": _as_json(values)}

    def first(self, sweep: Sweep) -> Config:
        """Return the configuration with the first value of each parameter."""
        first = {name: entry.get("values", [entry.get("min")])[0] for name, entry in sweep.space.items()}
        return self.config({**sweep.fixed, **self.fixed, **first})

    def made_of(self, sweep: Sweep) -> dict[str, str]:
        """Return digests of what trainings would be made of now: raw files, where a plan knows them, and the code."""
        raws: dict[str, list[str]] = defaultdict(list)
        session = Session(
            open_store(self.root), Silent(), planning=True, on_raw=lambda raw: raws[raw.name].append(raw.fingerprint)
        )
        with session.active():
            self.pipeline.wire(self.first(sweep))
        last = max((n for n, outcome in enumerate(session.outcomes, 1) if outcome.trains), default=0)
        stages = session.outcomes[:last]
        names = {name for outcome in stages for name in outcome.trains} | self._builds(sweep)
        modules = {stage.module for stage in stages} | {name.partition(":")[0] for name in names}
        return {name: digest(sorted(found)) for name, found in raws.items()} | {"code": session.code.digest(*modules)}

    def _builds(self, sweep: Sweep) -> set[str]:
        """Return the classes that any value of a parameter names, beside the first ones of the others."""
        common = {**sweep.fixed, **self.fixed}
        found = set(named(self.first(sweep)))
        for name, entry in sweep.space.items():
            for value in entry.get("values", ()):
                with suppress(ValueError):  # a combination that its trial will refuse
                    found |= set(named(self.config({**common, name: value})))
        return found


class TrialTerminal(Terminal):
    """Shows what a trial works at, and not what it finds in the cache."""

    def ends(self, outcome: Outcome) -> None:
        """Print what came out of work."""
        if outcome.status != "HIT":
            super().ends(outcome)


def search(
    console: Console,
    root: Path,
    name: str,
    *,
    phase: str | None,
    pipeline: str | None,
    profile: str | None,
    trials: int | None,
    overrides: Sequence[str],
    from_best: Sequence[str] | None,
    study: str | None,
    workers: str,
) -> None:
    """Run the trials of a sweep until there are so many, and print them with the command that repeats the best."""
    path = sweep_path(name)
    sweep = read_sweep(path, phase)
    command = _parse_command(sweep)
    pipeline, profile = pipeline or command.pipeline, profile or command.profile
    if pipeline is None:
        raise ValueError(f"{path} has no command `millrace run PIPELINE`; name the pipeline with --pipeline")
    storage = root / ".sweeps" / f"{study or path.stem}.sqlite"
    storage.parent.mkdir(parents=True, exist_ok=True)
    given = _parse_overrides(sweep, [*command.overrides, *overrides])
    plain = Target(find_pipeline(pipeline), profile_path(pipeline, profile), root, workers, given)
    fixed = _best_of_phases(console, path, phase, from_best, storage, plain) | given
    target = replace(plain, fixed=fixed)
    plan(target.pipeline, target.first(sweep), root)  # refuses what no trial could cure, e.g. data that is not there
    try:
        result = run_study(
            sweep,
            lambda parameters: _try(console, target, sweep, parameters),
            storage,
            trials,
            fixed,
            lambda text: console.print(escape(text), style="bold", highlight=False, soft_wrap=True),
            target.basis(sweep),
            target.idle,
            partial(target.made_of, sweep),
        )
    except SweepError as stopped:
        raise stopped.args[0] from None
    _print(console, sweep, result, f"millrace run {pipeline} --profile {shlex.quote(profile)}", storage)


def sweep_path(name: str) -> Path:
    """Return the file of a sweep that comes with Millrace, or of one's own."""
    if name.endswith((".yaml", ".yml")):
        return Path(name).absolute()
    path = SWEEPS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in SWEEPS.glob("*.yaml")))
        raise ValueError(f"there is no sweep {name!r}; there are: {known}; or give the path of a .yaml file")
    return path


def _parse_command(sweep: Sweep) -> argparse.Namespace:
    """Return pipeline, profile and overrides of the command that `wandb agent` would run."""
    words = [str(word) for word in sweep.content.get("command", ())]
    words = words[words.index("run") + 1 :] if "run" in words else []
    parser = argparse.ArgumentParser(exit_on_error=False, add_help=False)
    parser.add_argument("pipeline", nargs="?")
    parser.add_argument("--profile", "-p", default="tune")
    parser.add_argument("--set", "-s", dest="overrides", action="append", default=[])
    return parser.parse_known_args(words)[0]


def _parse_overrides(sweep: Sweep, overrides: Sequence[str]) -> dict[str, Any]:
    values = {}
    for override in overrides:
        name, value = parse_override(override)
        if name in sweep.space:
            raise ValueError(f"--set {name}: sweep {sweep.name} searches this field; take it out of one of the two")
        values[name] = value
    return _as_json(values)


def _as_json(values: dict[str, Any]) -> dict[str, Any]:
    """Return values as JSON has them; dates become text."""
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain


def _best_of_phases(
    console: Console, path: Path, phase: str | None, from_best: Sequence[str] | None, storage: Path, plain: Target
) -> dict[str, Any]:
    """Return the best parameters of other phases: those named, or all earlier ones that have a result."""
    known = phases(path)
    earlier = known[: known.index(phase)] if phase else []
    fixed: dict[str, Any] = {}
    for other in earlier if from_best is None else from_best:
        sweep = read_sweep(path, other)
        target = replace(plain, fixed={**fixed, **plain.fixed})
        try:
            best = best_parameters(sweep, storage, partial(target.made_of, sweep))
        except ValueError as error:
            if from_best is not None:
                raise ValueError(f"--from-best {other}: {error}") from None
            console.print(
                escape(f"phase {other} has no result: {error}; the profile's settings stay"),
                highlight=False,
                soft_wrap=True,
            )
            continue
        fixed |= best
        console.print(
            escape(f"fixed by phase {other}: {' '.join(as_overrides(best))}"), highlight=False, soft_wrap=True
        )
    return fixed


def _try(console: Console, target: Target, sweep: Sweep, parameters: Mapping[str, Any]) -> dict[str, float]:
    """Run the pipeline with a trial's parameters; a `ValueError` refuses them."""
    config = target.config(parameters)
    shown = {name: value for name, value in parameters.items() if name in sweep.space}
    console.print(escape(f"\ntrial with {' '.join(as_overrides(shown))}"), highlight=False, soft_wrap=True)
    try:
        record = run(
            target.pipeline,
            config,
            target.root,
            TrialTerminal(console),
            profile=str(target.profile),
            workers=target.workers,
        )
        return validation_metrics(trained_models(open_store(target.root), record))
    except TrainingError:
        raise
    except ValueError as error:
        raise SweepError(error) from None


def trained_models(store: AssetStore, record: RunRecord) -> list[Asset]:
    """Return the models that a run trained or found trained."""
    from tasks.training.release import CONFIG, WEIGHTS

    assets = [store.asset(*stage.asset.split("/")) for stage in record.stages]
    return [asset for asset in assets if {WEIGHTS, CONFIG} <= {file.path for file in asset.manifest.files}]


def validation_metrics(models: Sequence[Asset]) -> dict[str, float]:
    """Return what the released weights reached in validation, the mean where one model was trained with many seeds."""
    from tasks.training.release import CONFIG

    if not models:
        raise ValueError("the pipeline trains no model, so there is nothing to search for; give the profile a model")
    recipes = [{k: v for k, v in asset.manifest.config.items() if k != "seed"} for asset in models]
    if any(recipe != recipes[0] for recipe in recipes):
        raise ValueError(
            f"the pipeline trains {len(models)} models of different kinds; a sweep searches for one: leave one in the "
            "profile (with as many seeds as you like), and no ablations"
        )
    metrics = [json.loads((asset.folder / CONFIG).read_bytes())["weights"]["metrics"] for asset in models]
    return {name: fmean(m[name] for m in metrics) for name in metrics[0] if all(name in m for m in metrics)}


def report_to_agent(root: Path, record: RunRecord) -> None:
    """Tell `wandb agent` the metrics of a run whose trainings were all found in the cache."""
    store = open_store(root)
    models = trained_models(store, record)
    worked = {stage.asset for stage in record.stages if stage.status != "HIT"}
    if models and not worked & {f"{model.kind}/{model.key}" for model in models}:
        report_cached(validation_metrics(models), root / ".wandb")


def _print(console: Console, sweep: Sweep, result: StudyResult, command: str, storage: Path) -> None:
    """Print all trials, the best one, and the command that runs it again."""
    names = list(sweep.space)
    short = _short_names(names)
    metric = sweep.metric.removeprefix("val/")
    rows = table("trial", *short, metric, "state")
    best = {name: value for name, value in result.parameters.items() if name in sweep.space}
    for trial in result.trials:
        values = [_shown(trial.parameters[n]) if n in trial.parameters else "" for n in names]
        is_best = trial.value == result.value and dict(trial.parameters) == best
        state = "[bold green]best[/]" if is_best else escape(f"refused: {trial.refusal}") if trial.refusal else "done"
        value = "" if trial.value is None else f"{trial.value:.4f}"
        rows.add_row(str(trial.number), *map(escape, values), value, state)
    console.print()
    print_table(console, rows)
    settings = " ".join(f"--set {shlex.quote(text)}" for text in as_overrides(result.parameters))
    console.print(
        f"\n[bold green]best[/]  {metric} {result.value:.4f} of {result.finished} trials in {escape(str(storage))}\n"
        f"{escape(f'{command} {settings}')}",
        highlight=False,
        soft_wrap=True,
    )


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _short_names(names: Sequence[str]) -> list[str]:
    """Return the ends of dotted names, as long as it takes to tell them apart."""
    for parts in range(1, max((name.count(".") for name in names), default=0) + 2):
        short = [".".join(name.split(".")[-parts:]) for name in names]
        if len(set(short)) == len(names):
            return short
    return list(names)
