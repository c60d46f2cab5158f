"""Trainings as child processes: started, listened to, and ended with the stage that started them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from configs.training import Execution, TrainingConfig
from storage.files import write_atomic
from storage.hashing import canonical_json
from tasks.stage import Job, Label, StageResult, side_by_side
from tasks.training import forks
from tasks.training.events import MARK, parse
from tasks.training.forks import Forked
from tasks.training.spec import ObjectiveSpec
from tasks.training.worker import PARENT
from tasks.units import children, cores

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TAIL = 25  # lines of a traceback that a person is shown


class TrainingError(ValueError):
    """A training cannot go on with these settings, e.g. because its loss is no number; other settings may do."""


GPU_DRIVER = Path("/dev/nvidiactl")  # there is a GPU here; asking torch would load it into every plan
Recipe = TypeVar("Recipe")


def trainings_at_once(execution: Execution) -> int:
    """Return how many trainings this machine has room for: as many as its cores have threads for, one on GPUs."""
    if execution.threads is None or (execution.device != "cpu" and GPU_DRIVER.exists()):
        return 1
    return max(1, cores() // (execution.threads * execution.ranks))


def train_all(
    trainings: Iterable[tuple[str, int, Recipe]], execution: Execution, training: Callable[[Label, int, Recipe], Any]
) -> dict[str, Any]:
    """Call a training stage for every (name, seed, recipe), side by side where there is room; return label -> asset."""
    calls = {Label(f"{name}-{seed}"): (seed, recipe) for name, seed, recipe in trainings}
    branches = [partial(training, label, *call) for label, call in calls.items()]
    return dict(zip(calls, side_by_side(branches, trainings_at_once(execution)), strict=True))


def train(job: Job, spec: ObjectiveSpec, *, training: TrainingConfig, execution: Execution) -> StageResult:
    """Train in a child process, or one per rank, what the stage declares, and leave the model in the job's folder.

    Run again after a kill, the training goes on from its last checkpoint. An error of the child that is a
    `ValueError` is raised as one, any other as `ChildProcessError` with the end of its traceback.
    """
    assert spec.path == job.objective, f"{job.stage} must say what it trains: @stage(..., objective={spec.path!r})"
    scratch = job.workspace.scratch
    description = {
        "stage": job.title,
        "key": job.folder.name.removesuffix(".partial"),
        "folder": str(job.folder),
        "scratch": str(scratch),
        "wandb_folder": str(job.session.store.root / ".wandb"),
        "objective": spec.path,
        "objective_config": spec.config,
        "training": training,
        "execution": execution,
    }
    path = scratch / "job.json"
    write_atomic(path, canonical_json(description))
    process = _start(path, execution.ranks, spec.path)
    try:
        with (scratch / "log.txt").open("a") as log:
            facts, errors, last = _listen(job, process, log)
        code = process.wait()
    finally:
        if process.poll() is None:
            process.kill()  # its ranks follow
            process.wait()
    if code or facts is None:
        _fail(code, errors, last)
    return StageResult(facts["counts"], facts["metrics"], machines=facts["machines"])


def prepare(needed: Iterable[str]) -> None:
    """Begin to import what trainings will need, `module:Class`, in the background, where they will be forked."""
    if _are_forked():
        forks.prepare([name.partition(":")[0] for name in needed], _environment())


def _are_forked() -> bool:
    """Say whether trainings are forked; not where a GPU's driver would be forked too."""
    return forks.AVAILABLE and not GPU_DRIVER.exists()


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in RANK_VARIABLES}
    return kept | {
        PARENT: str(os.getpid()),
        "PYTHONPATH": os.pathsep.join(filter(None, [forks.PLACE, os.environ.get("PYTHONPATH")])),
        "PYTHONSAFEPATH": "1",  # a file in the working directory cannot shadow a module
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),  # until the rank sets its threads itself
    }


def _start(job: Path, ranks: int, objective: str) -> subprocess.Popen[str] | Forked:
    """Start the process, or that of several ranks."""
    environment = _environment()
    if ranks == 1 and _are_forked():
        return children.start(partial(forks.start, job, objective, environment))
    program = ["tasks.training.worker"] if ranks == 1 else ["tasks.training.torchrun", str(ranks)]
    start = partial(
        subprocess.Popen,
        [sys.executable, "-m", *program, str(job)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,  # Ctrl-C is the parent's business
    )
    return children.start(start)


def _listen(
    job: Job, process: subprocess.Popen[str] | Forked, log: Any
) -> tuple[dict[str, Any] | None, list[dict[str, Any]], list[str]]:
    """Pass on what the child tells; return its facts, its errors, and the last lines of its ordinary output."""
    facts: dict[str, Any] | None = None
    errors: list[dict[str, Any]] = []
    last: list[str] = []
    for line, event in _events(process):
        if event is None:
            log.write(f"{line}\n")
            log.flush()
            last = [*last[1 - TAIL :], line]
            if line.strip() and not errors:
                job.message(line)
            continue
        match event["event"]:
            case "progress":
                job.progress(event["done"], event["total"])
            case "message":
                job.message(event["text"])
            case "picture":
                job.picture(event["name"], Path(event["path"]).read_bytes())
            case "error":
                errors.append(event)
                log.write(event["trace"])
            case "done":
                facts = event
    return facts, errors, last


def _events(process: subprocess.Popen[str] | Forked) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yield each line of a process with the event that it is; output before an event's mark is a line of its own."""
    assert process.stdout is not None
    for line in process.stdout:
        before, mark, _ = line.rstrip("\n").partition(MARK)
        if before or not mark:
            yield before, None
        if mark:
            yield "", parse(line)


def _fail(code: int, errors: list[dict[str, Any]], last: list[str]) -> NoReturn:
    for error in errors:
        if error["wrong_input"]:
            raise TrainingError(error["text"])
    if errors:
        lines = errors[0]["trace"].rstrip().splitlines()
        raise ChildProcessError("the training process failed:\n" + "\n".join(lines[-TAIL:]))
    if code < 0:
        raise ChildProcessError(
            f"the training process was killed by signal {-code}, perhaps for want of memory; its last checkpoint is "
            "kept: run again to go on from there"
        )
    raise ChildProcessError(f"the training process ended with status {code}:\n" + "\n".join(last))
