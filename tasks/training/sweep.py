"""Sweeps: one file in W&B's own format, searched by `wandb agent` or, without an account, by Optuna on this machine.

Parameters are named by their override path in the pipeline's configuration, e.g. `models.emberformer.model.d_model`.
A sweep `NAME.yaml` may have phases, `NAME/PHASE.yaml` beside it; each is a sweep file like any other.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from storage.hashing import digest
from storage.locks import FileLock
from tasks.reasons import leaves
from tasks.training.tracking import SWEEP_VARIABLE

if TYPE_CHECKING:
    from optuna import Study
    from optuna import Trial as OptunaTrial
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

IN_KEY = False

PARAMETER_FILE = "WANDB_SWEEP_PARAM_PATH"
BASIS = "basis"  # study attribute: what all its trials have in common
MADE_OF = "made_of"  # study attribute: digests of the data and the code that its trials are made of
FAILURE = "failure"  # trial attribute: why a combination was refused, so that it is not tried again
DISTRIBUTIONS = ("constant", "categorical", "int_uniform", "uniform", "q_uniform", "log_uniform_values")

TrialFunction = Callable[[Mapping[str, Any]], Mapping[str, float]]
Idle = Callable[[Mapping[str, Any]], Collection[str]]
"""From the parameters chosen so far, those that change nothing beside them."""
MadeOf = Callable[[], Mapping[str, str]]
"""Names and digests of the data and the code that trials are made of, so far as they are known."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A search space, how it is searched, and towards what."""

    name: str
    method: Literal["grid", "random", "bayes"]
    metric: str
    """As W&B knows it, e.g. `val/f1`."""
    maximise: bool
    fixed: Mapping[str, Any]
    """Parameters with one value."""
    space: Mapping[str, Mapping[str, Any]]
    """The others, each as in the file."""
    run_cap: int | None
    """Runs after which the sweep ends; None: when the grid is exhausted."""
    content: Mapping[str, Any]
    """The whole file."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial that came to an end."""

    number: int
    parameters: Mapping[str, Any]
    """Those that were searched: none that changes nothing beside the others."""
    value: float | None
    """None where the combination was refused."""
    refusal: str = ""
    """Why it was."""


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What a local sweep found."""

    value: float
    parameters: Mapping[str, Any]
    """Of the best trial, fixed ones included."""
    trials: tuple[Trial, ...]

    @property
    def finished(self) -> int:
        """Trials that came to an end."""
        return len(self.trials)

    @property
    def failed(self) -> int:
        """Trials among them that were refused."""
        return sum(trial.value is None for trial in self.trials)


def phases(path: Path) -> list[str]:
    """Return the phases of a sweep in their order."""
    return [phase.stem for phase in sorted(path.with_suffix("").glob("*.yaml"))]


def read_sweep(path: Path, phase: str | None = None) -> Sweep:
    """Read a sweep file, or the file of one of its phases; every fault is one `ValueError` sentence."""
    if phase is not None:
        if phase not in phases(path):
            raise ValueError(f"sweep {path.stem} has no phase {phase!r}; it has {', '.join(phases(path)) or 'none'}")
        path = path.with_suffix("") / f"{phase}.yaml"
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"sweep: there is no file {path}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    try:
        return _parse(content, path.stem)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no sweep: it needs method, metric (name, goal) and parameters as W&B documents them ({error!r})"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _parse(content: Mapping[str, Any], name: str) -> Sweep:
    method, metric, goal = content["method"], content["metric"]["name"], content["metric"].get("goal")
    if method not in ("grid", "random", "bayes"):
        raise ValueError(f"method {method!r} is not known; choose grid, random or bayes")
    if goal is None:
        raise ValueError(
            f"metric.goal is missing; write `goal: maximize` where a larger {metric} is better, or `goal: minimize` "
            "where a smaller one is (W&B would minimise)"
        )
    if goal not in ("maximize", "minimize"):
        raise ValueError(f"metric.goal {goal!r} is not known; choose maximize or minimize")
    fixed: dict[str, Any] = {}
    space: dict[str, Mapping[str, Any]] = {}
    for parameter, entry in content["parameters"].items():
        if _distribution(parameter, entry) == "constant":
            fixed[parameter] = entry["value"]
        else:
            space[parameter] = entry
    if method == "grid" and (ranges := [p for p, entry in space.items() if "values" not in entry]):
        raise ValueError(f"a grid needs `values` for {', '.join(ranges)}")
    return Sweep(
        name=content.get("name", name),
        method=method,
        metric=metric,
        maximise=goal == "maximize",
        fixed=fixed,
        space=space,
        run_cap=content.get("run_cap"),
        content=content,
    )


def _distribution(name: str, entry: Mapping[str, Any]) -> str:
    """Return the distribution of a parameter, named or implied, and check its fields."""
    if "value" in entry:
        return "constant"
    if "values" in entry:
        kind, numbers = "categorical", []
        if entry.get("probabilities"):
            raise ValueError(f"{name}: probabilities are not supported; repeat no value and leave them out")
    else:
        numbers = [entry["min"], entry["max"], entry.get("q", 1.0)]
        kind = entry.get("distribution") or ("int_uniform" if _are_whole(*numbers[:2]) else "uniform")
    if kind not in DISTRIBUTIONS:
        raise ValueError(f"{name}: distribution {kind!r} is not supported; choose one of {', '.join(DISTRIBUTIONS)}")
    for number in [*numbers, *entry.get("values", ())]:
        if isinstance(number, str) and _is_number(number):
            raise ValueError(f"{name}: YAML reads {number} as text; write it with a point, e.g. 1.0e-4")
        if not isinstance(number, str | int | float | bool | None):
            raise ValueError(f"{name}: {number!r} is neither a number, a text, a truth value nor null")
    if odd := [n for n in numbers if isinstance(n, bool) or not isinstance(n, int | float)]:
        raise ValueError(f"{name}: a range goes from a number to a number, not {odd[0]!r}; or list `values`")
    if kind == "int_uniform" and not _are_whole(*numbers[:2]):
        raise ValueError(
            f"{name}: int_uniform draws whole numbers between whole bounds, not {numbers[0]} and {numbers[1]}; write "
            "`distribution: uniform` for fractions"
        )
    return kind


def _are_whole(*numbers: Any) -> bool:
    return all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def as_overrides(parameters: Mapping[str, Any]) -> list[str]:
    """Return parameters as `a.b=value`, the way `--set` takes them."""
    texts = {
        name: yaml.safe_dump(value, default_flow_style=True, width=math.inf).removesuffix("\n").removesuffix("\n...")
        for name, value in parameters.items()
    }
    return [f"{name}={text}" for name, text in texts.items()]


# -- under `wandb agent` -------------------------------------------------------------------------------------------


def sweep_overrides() -> list[str]:
    """Return what `wandb agent` wants this process to run with, as `a.b=value`; nothing outside an agent.

    These are the values that `wandb.config` takes in the run; they are read from the agent's file, because the
    configuration must be known before any training starts a run.
    """
    path = os.environ.get(PARAMETER_FILE)
    if SWEEP_VARIABLE not in os.environ or not path:
        return []
    content = yaml.safe_load(Path(path).read_text())
    return as_overrides({name: entry["value"] for name, entry in content.items() if name != "wandb_version"})


def report_cached(metrics: Mapping[str, float], folder: Path) -> None:
    """Tell the sweep the metrics of a training that was found in the cache and so opened no run of its own."""
    if SWEEP_VARIABLE not in os.environ:
        return
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    with wandb.init(dir=folder, settings=wandb.Settings(console="off", silent=True)) as run:
        values = {f"val/{name}": value for name, value in metrics.items()}
        run.log(values)
        run.summary.update(values)


# -- on this machine -----------------------------------------------------------------------------------------------


def run_study(
    sweep: Sweep,
    trial_function: TrialFunction,
    storage: Path,
    trials: int | None = None,
    fixed: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
    basis: Mapping[str, Any] | None = None,
    idle: Idle = lambda parameters: (),
    made_of: MadeOf = dict,
) -> StudyResult:
    """Search with Optuna until so many trials (default: the file's `run_cap`, or the whole grid) are finished.

    The study lives in an SQLite file. Run again after a kill, the trial that was running is marked failed and tried
    again. `trial_function` gets all parameters (`fixed` overrides the file's) and returns metrics by name, without
    the `val/` of W&B; a `ValueError` refuses a combination, which then counts as finished. `bayes` is Optuna's TPE.
    `early_terminate` is W&B's alone. Parameters that are `idle` beside those before them in the file are not searched,
    so a grid tries each distinct combination once. What is drawn is a function of the file and of the trials that are
    finished. A study is continued only on the `basis` on which it was begun: the whole
    configuration behind the trials, as JSON, or by default the fixed parameters. Where what trials are `made_of` is no
    longer what the finished ones were made of, another study begins, which draws from the start.
    """
    limit = trials or sweep.run_cap or math.inf
    if sweep.method != "grid" and limit == math.inf:
        raise ValueError(f"sweep {sweep.name}: a {sweep.method} search has no end of its own; give it a run_cap")
    lock = FileLock(storage.with_name(f"{storage.name}.lock"))
    if not lock.try_acquire():
        raise ValueError(f"process {lock.holder()} is at work on the studies in {storage}; wait for it or stop it")
    with lock:
        constants = {**sweep.fixed, **{n: v for n, v in (fixed or {}).items() if n not in sweep.space}}
        study = _open_study(sweep, storage, constants if basis is None else basis, made_of(), say)
        _fail_killed(study, sweep, say)
        if sweep.method == "grid":
            limit = min(limit, _enqueue_grid(study, sweep, constants, idle))
        while len(_finished(study)) < limit:
            _run_trial(study, sweep, constants, trial_function, say, idle, made_of)
        return _result(study, sweep, constants)


def best_parameters(sweep: Sweep, storage: Path, made_of: MadeOf = dict) -> dict[str, Any]:
    """Return the searched parameters of a study's best trial, to be fixed in the phases after it."""
    studies = _studies(sweep, storage)
    now = made_of() if studies else {}
    try:
        return dict(_unchanged(studies, now).best_params)
    except (LookupError, ValueError):
        old = f" (older ones: {_how_to_list(studies[-1], storage)})" if studies else ""
        raise ValueError(
            f"{storage} holds no finished trial of {sweep.name} with data and code as they are now{old}; run that "
            "sweep first"
        ) from None


def _study_name(sweep: Sweep, number: int = 1) -> str:
    """Return a name that changes with the search space: an edited file begins a new study."""
    name = f"{sweep.name}-{digest([sweep.method, sweep.metric, sweep.maximise, sweep.space, sweep.fixed])[:8]}"
    return name if number == 1 else f"{name}-{number}"


def _studies(sweep: Sweep, storage: Path) -> list[Study]:
    """Return the studies of a sweep, the oldest first; one begins whenever data or code are others."""
    import optuna

    if not storage.exists():
        return []
    known = set(optuna.get_all_study_names(_url(storage)))
    names = itertools.takewhile(known.__contains__, (_study_name(sweep, number) for number in itertools.count(1)))
    return [optuna.load_study(study_name=name, storage=_url(storage)) for name in names]


def _unchanged(studies: Sequence[Study], made_of: Mapping[str, str]) -> Study:
    """Return the newest study whose trials are made of just this; `LookupError` where there is none."""
    for study in reversed(studies):
        if not _changes(study, made_of):
            return study
    raise LookupError


def _changes(study: Study, made_of: Mapping[str, str]) -> list[str]:
    """Return the names of what a study's trials are made of that is another now, or not known to be the same."""
    noted = study.user_attrs.get(MADE_OF)
    if noted is None:
        return ["data or code (nobody noted which)"] if _finished(study) else []
    return sorted(name for name, value in noted.items() if made_of.get(name) != value)


def _how_to_list(study: Study, storage: Path) -> str:
    return f"optuna trials --storage {_url(storage)} --study-name {study.study_name}"


def _url(storage: Path) -> str:
    return f"sqlite:///{storage.absolute()}"


def _open_study(
    sweep: Sweep, storage: Path, basis: Mapping[str, Any], made_of: Mapping[str, str], say: Callable[[str], None]
) -> Study:
    """Return the study to go on with, or a new one where there is none or data or code have changed."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    studies = _studies(sweep, storage)
    for study in studies:
        _require_basis(study, sweep, storage, basis)
    try:
        study = _unchanged(studies, made_of)
    except LookupError:
        study = optuna.create_study(
            storage=_url(storage),
            study_name=_study_name(sweep, len(studies) + 1),
            direction="maximize" if sweep.maximise else "minimize",
        )
        if studies:
            say(
                f"a new study begins, {study.study_name}: the trials of the last one were made of other "
                f"{', '.join(_changes(studies[-1], made_of))}; look at them with {_how_to_list(studies[-1], storage)}"
            )
    study.set_user_attr(BASIS, dict(basis))
    return study


def _require_basis(study: Study, sweep: Sweep, storage: Path, basis: Mapping[str, Any]) -> None:
    new, old = leaves(basis), leaves(study.user_attrs.get(BASIS, dict(basis)))
    if changed := [f"{n} {old.get(n)} -> {new.get(n)}" for n in sorted(old | new) if old.get(n) != new.get(n)]:
        raise ValueError(
            f"sweep {sweep.name} was begun in {storage} with other fixed parameters ({'; '.join(changed[:3])}); keep "
            "to those, or give the study another name to begin anew"
        )


def _note_made_of(study: Study, sweep: Sweep, made_of: Mapping[str, str]) -> None:
    """Note what a trial was made of, before its value is; refuse one that does not belong with those before it."""
    if study.user_attrs.get(MADE_OF) is not None and (changes := _changes(study, made_of)):
        raise ValueError(
            f"sweep {sweep.name}: {', '.join(changes)} changed while the trials ran, so the last one is not counted; "
            "run the sweep again when nothing changes any more, and a new study begins"
        )
    study.set_user_attr(MADE_OF, dict(made_of))


def _run_trial(
    study: Study,
    sweep: Sweep,
    constants: Mapping[str, Any],
    trial_function: TrialFunction,
    say: Callable[[str], None],
    idle: Idle,
    made_of: MadeOf,
) -> None:
    from optuna.trial import TrialState

    study.sampler = _sampler(study, sweep)
    trial = study.ask()
    given = study.get_trials(deepcopy=False)[trial.number].system_attrs.get("fixed_params", {})
    for name in sweep.space:
        if name in given or (sweep.method != "grid" and name not in idle({**constants, **trial.params})):
            _suggest(trial, name, sweep.space[name])
    try:
        metrics = trial_function({**constants, **trial.params})
    except ValueError as error:
        _note_made_of(study, sweep, made_of())
        trial.set_user_attr(FAILURE, str(error))
        study.tell(trial, state=TrialState.FAIL)
        say(f"trial {trial.number} is refused: {error}")
        return
    _note_made_of(study, sweep, made_of())
    name = sweep.metric.removeprefix("val/")
    if name not in metrics:
        raise ValueError(f"sweep {sweep.name} wants {name!r}; the trial reports {', '.join(sorted(metrics))}")
    study.tell(trial, metrics[name])
    chosen = ", ".join(f"{n.rpartition('.')[2]} {v}" for n, v in trial.params.items())
    say(f"trial {trial.number}: {name} {metrics[name]:.4g} with {chosen}")


def _sampler(study: Study, sweep: Sweep) -> BaseSampler:
    """Return a sampler whose random numbers depend on the study and on how many of its trials are finished."""
    from optuna.samplers import RandomSampler, TPESampler

    seed = int(digest([_study_name(sweep), len(_finished(study))])[:8], 16)
    return TPESampler(seed=seed) if sweep.method == "bayes" else RandomSampler(seed=seed)


def _suggest(trial: OptunaTrial, name: str, entry: Mapping[str, Any]) -> None:
    match _distribution(name, entry):
        case "categorical":
            trial.suggest_categorical(name, entry["values"])
        case "int_uniform":
            trial.suggest_int(name, entry["min"], entry["max"])
        case "q_uniform":
            trial.suggest_float(name, entry["min"], entry["max"], step=entry.get("q", 1.0))
        case kind:
            trial.suggest_float(name, entry["min"], entry["max"], log=kind == "log_uniform_values")


def _finished(study: Study) -> list[FrozenTrial]:
    """Return the trials that came to an end: with a value, or refused; not those that a kill cut off."""
    from optuna.trial import TrialState

    done = (t for t in study.trials if t.state == TrialState.COMPLETE or FAILURE in t.user_attrs)
    return [trial for trial in done if trial.state != TrialState.RUNNING]


def _fail_killed(study: Study, sweep: Sweep, say: Callable[[str], None]) -> None:
    """Mark trials that a kill cut off as failed, and put them up again (those of a grid are put up with the rest)."""
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if sweep.method != "grid":
            study.enqueue_trial(trial.params)
        say(f"trial {trial.number} was cut off and is tried again")


def _enqueue_grid(study: Study, sweep: Sweep, constants: Mapping[str, Any], idle: Idle) -> int:
    """Put up every distinct combination that is neither done nor waiting; return how many there are in all.

    Optuna's GridSampler is not used: it counts a trial that was killed as visited, and fails on trials that were
    put up again.
    """
    from optuna.trial import TrialState

    grid = _grid(sweep, constants, idle)
    waiting = [t.system_attrs["fixed_params"] for t in study.get_trials(states=(TrialState.WAITING,))]
    known = [*waiting, *(t.params for t in _finished(study))]
    for combination in _without(grid, known):
        study.enqueue_trial(combination)
    return len(grid)


def _grid(sweep: Sweep, constants: Mapping[str, Any], idle: Idle) -> list[dict[str, Any]]:
    """Return all combinations that differ in parameters that change something, without the others."""
    grid: dict[str, dict[str, Any]] = {}
    for values in itertools.product(*(entry["values"] for entry in sweep.space.values())):
        whole = dict(zip(sweep.space, values, strict=True))
        without = idle({**constants, **whole})
        combination = {name: value for name, value in whole.items() if name not in without}
        grid.setdefault(json.dumps(combination, sort_keys=True), combination)
    return list(grid.values())


def _without(grid: Sequence[dict[str, Any]], known: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    seen = {json.dumps(parameters, sort_keys=True) for parameters in known}
    return [parameters for parameters in grid if json.dumps(parameters, sort_keys=True) not in seen]


def _result(study: Study, sweep: Sweep, constants: Mapping[str, Any]) -> StudyResult:
    trials = tuple(Trial(t.number, t.params, t.value, str(t.user_attrs.get(FAILURE, ""))) for t in _finished(study))
    if all(trial.refusal for trial in trials):
        first = f"; the first reason: {trials[0].refusal}" if trials else ""
        raise ValueError(f"sweep {sweep.name}: no trial came to a result{first}")
    return StudyResult(study.best_value, {**constants, **study.best_params}, trials)
