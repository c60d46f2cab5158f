"""Stages: functions from assets and config to one asset, cached by content. The only door to Prefect in `tasks`.

A stage is declared with `@stage`, called like a function, and behaves by the active session: it plans, runs in this
process, or runs as a Prefect task. Its key is the SHA-256 of its name and version, its code, the config values that
it is given, and the output fingerprints of its inputs.
"""

from __future__ import annotations

import base64
import importlib
import inspect
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec
from uuid import UUID

from storage.assets import KEY_LENGTH, Asset, Unit, Workspace, describe_size, describe_value
from storage.files import is_temporary, is_writable, walk_files
from storage.hashing import digest, file_sha256, jsonable
from storage.manifest import (
    FileRecord,
    InputRecord,
    Manifest,
    UnitEntry,
    UnitRecord,
    fingerprint,
    now,
    software_versions,
)
from storage.raw import FoundFiles, RawIndex, RawInput
from storage.space import disk_sentence
from tasks.keys import config_in_key, named
from tasks.reasons import Wanted, explain
from tasks.session import Outcome, Pending, Reporter, Session, current_session
from tasks.units import UnitFunction, Workers, children, map_units

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

IN_KEY = False

Input = Asset | RawInput
P = ParamSpec("P")
_importing = threading.Lock()
PATIENCE = 1.0  # seconds that an interrupt leaves threads to end
PLAN_HASH_LIMIT = 200_000_000  # bytes of new raw files that a plan still hashes itself


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a stage says of its asset: counts and metrics for the table, and pictures (PNG files in the asset), in the
    order in which people look at them."""

    counts: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    pictures: Sequence[str] = ()
    machines: Sequence[Mapping[str, str]] = ()
    """See `Manifest.machines`."""


class Label(str):
    """What a person calls one of several calls of a stage, e.g. a model's name; never part of a key."""

    __slots__ = ()
    IN_KEY = False


@dataclass(frozen=True)
class Job:
    """What a stage function works with."""

    stage: str
    title: str
    workspace: Workspace
    session: Session
    predecessors: Sequence[Asset]
    code: str
    objective: str
    """What the stage trains or judges by, as `module:Class`; empty where it is neither."""

    @property
    def folder(self) -> Path:
        """The workspace's folder, which becomes the asset."""
        return self.workspace.folder

    def message(self, text: str) -> None:
        """Tell whoever watches."""
        self.session.reporter.message(text)

    def progress(self, done: int, total: int, words: str = "") -> None:
        """Move the bar of whoever watches."""
        self.workspace.expect_steps(total)
        self.session.reporter.progress(self.title, done, total, words)

    def progress_in(self, part: int, parts: int) -> Callable[[int, int], None]:
        """Return what moves the bar through one of several parts of equal work, numbered from 0."""
        return lambda done, total: self.progress(part * total + done, parts * total)

    def picture(self, name: str, png: bytes) -> None:
        """Show whoever watches a picture of the work so far; no file of the asset, and in no key."""
        self.session.reporter.picture(self.title, name, png)

    def unit(self, name: str, identity: Any, payload: Any = None) -> Unit:
        """Return a unit; `identity` (JSON) is everything besides the stage's code that shapes its bytes."""
        return Unit(name, digest([self.stage, self.code, identity]), payload)

    def map(
        self,
        function: UnitFunction,
        units: Sequence[Unit],
        rename: Callable[[str, Unit], str] | None = None,
        fan_out_from: int = 2,
        watch: Callable[[Mapping[str, UnitRecord]], None] | None = None,
    ) -> list[UnitRecord]:
        """Do all units that are not done yet and return every unit's record, in order.

        Units in the ledger are kept, units with an unchanged key are taken over from older assets of this stage by
        hard link (`rename` maps their file names), and the rest runs on the session's workers; fewer than
        `fan_out_from` units are not worth the start of worker processes. What a unit writes and does not declare is
        deleted. `watch` moves the bar instead of the count of units: it gets the finished units whenever one ends, and
        every second while local processes work.
        """
        self.workspace.expect(len(units))
        wanted = {unit.id: unit for unit in units}
        assert len(wanted) == len(units), "unit ids must differ"
        done = self.workspace.finished()
        for unit_id, record in list(done.items()):
            if unit_id not in wanted or wanted[unit_id].key != record.key:
                self.workspace.strike(done.pop(unit_id))
        if missing := [u for u in units if u.id not in done]:
            adopted = self.workspace.adopt(missing, self.predecessors, rename)
            if adopted:
                self.message(f"{len(adopted)} of {len(units)} units are unchanged and taken over from an older asset")
            done |= {record.id: record for record in adopted}
        pending = [u for u in units if u.id not in done]

        def look() -> None:
            if watch:
                watch(done)

        def note(record: UnitRecord) -> None:
            done[record.id] = record
            if watch is None:
                self.progress(len(done), len(units))
            look()

        workers = self.session.workers if len(pending) >= fan_out_from else Workers("inline")
        before = set(walk_files(self.folder))
        map_units(function, self.workspace, pending, workers, note, look)
        self.workspace.sweep(keep=before | _files_of(done))
        return [done[unit.id] for unit in units]


@dataclass(frozen=True)
class Request:
    """One stage call, resolved: its config, its inputs and the key that they make."""

    config: dict[str, Any]
    config_in_key: dict[str, Any]
    inputs: dict[str, Input]
    builds: tuple[str, ...]
    code: str
    key: str


class Stage(Generic[P]):
    """A declared stage; call it with keyword arguments inside an active session."""

    def __init__(
        self, function: Callable[Concatenate[Job, P], StageResult], kind: str, version: int, objective: str
    ) -> None:
        self.function = function
        self.kind = kind
        self.objective = objective
        self.name = function.__name__
        self.version = version
        self.__doc__ = function.__doc__
        self._signature = inspect.signature(function)

    def __call__(self, *positional: P.args, **arguments: P.kwargs) -> Any:
        """Return the stage's asset (in a plan, `Pending` where it does not exist yet)."""
        session = current_session()
        self._signature.bind(None, *positional, **arguments)
        if session.planning:
            return self._plan(session, arguments)
        if session.engine == "prefect":
            return _run_as_prefect_task(self, session, arguments)
        return self.execute(session, arguments).asset

    def request(self, session: Session, arguments: Mapping[str, Any]) -> Request:
        """Split arguments into inputs and config, and compute the key."""
        inputs = {name: value for name, value in arguments.items() if isinstance(value, Input)}
        config = {
            name: jsonable(value)
            for name, value in arguments.items()
            if name not in inputs and getattr(value, "IN_KEY", True)
        }
        builds = _built(arguments)
        for value in inputs.values():
            if isinstance(value, Asset):
                if gone := session.code.absent(value.manifest.builds):
                    raise ValueError(f"{value} was made by {gone}, which is no longer there; make it again")
                builds |= set(value.manifest.builds)
        code = self._code(session, builds)
        in_key = {name: config_in_key(arguments[name]) for name in config}
        parts = {
            "stage": self.name,
            "version": self.version,
            "code": code,
            "config": in_key,
            "inputs": {name: value.fingerprint for name, value in inputs.items()},
        }
        return Request(config, in_key, inputs, tuple(sorted(builds)), code, digest(parts)[:KEY_LENGTH])

    def _code(self, session: Session, builds: set[str]) -> str:
        run = {self.objective, *builds} - {""}
        return session.code.digest(self.function.__module__, *(name.partition(":")[0] for name in run))

    def title(self, arguments: Mapping[str, Any]) -> str:
        """Return the stage's name, with the label that a call gave."""
        return " ".join([self.name, *(value for value in arguments.values() if isinstance(value, Label))])

    def _plan(self, session: Session, arguments: Mapping[str, Any]) -> Asset | Pending:
        pending = [value for value in arguments.values() if isinstance(value, Pending)]
        if pending:
            self._code(session, _built(arguments))  # is read and parsed now, and not by several threads of the run
            reasons = "; ".join(dict.fromkeys(value.reason for value in pending))
            reason = f"{reasons}; cached if that changes nothing"
            session.add(self._planned(Outcome(self.title(arguments), "RUN", reason), arguments))
            return Pending(f"after {self.name}")
        request = self.request(session, arguments)
        asset = session.store.asset(self.kind, request.key)
        deep = session.deep or session.store.marked(asset)
        outcome = self._look(session, request, asset, self.title(arguments), deep)
        session.add(self._planned(outcome, arguments))
        if outcome.status == "HIT":
            assert outcome.asset is not None
            return outcome.asset
        return Pending(f"after {self.name}")

    def _planned(self, outcome: Outcome, arguments: Mapping[str, Any]) -> Outcome:
        """Add what code the stage would run."""
        outcome.module = self.function.__module__
        outcome.trains = (self.objective, *sorted(_built(arguments))) if self.objective else ()
        return outcome

    def _look(self, session: Session, request: Request, asset: Asset, title: str, deep: bool) -> Outcome:
        """Say what has to be done for an asset, and why, without doing it."""
        if session.store.published(asset):
            damages = session.store.verify(asset, deep=deep)
            if not damages:
                check = f"by {'content' if deep else 'size'}{session.store.where}"
                made_on = f"; made on {asset.manifest.made_on}" if asset.manifest.machines else ""
                return Outcome(title, "HIT", f"{len(asset.manifest.files)} files verified {check}{made_on}", asset)
            more = f" and {len(damages) - 1} more" if len(damages) > 1 else ""
            return Outcome(title, "RUN", f"{damages[0]}{more}")
        workspace = session.store.workspace(asset)
        if workspace.folder.exists():
            done, total = workspace.progress()
            reason = "continues where an earlier run was cut off"
            return Outcome(title, "RESUME", reason, done=done, total=total)
        return Outcome(title, "RUN", self._explain(session, request))

    def _explain(self, session: Session, request: Request) -> str:
        inputs = {name: _input_record(name, value) for name, value in request.inputs.items()}
        wanted = Wanted(self.name, self.version, request.code, request.config, request.config_in_key, inputs)
        return explain(wanted, session.store.assets(self.kind))

    def execute(self, session: Session, arguments: Mapping[str, Any]) -> Outcome:
        """Bring the asset about, or find it, and hold it for the session."""
        started = time.perf_counter()
        request, title = self.request(session, arguments), self.title(arguments)
        asset = session.store.asset(self.kind, request.key)
        session.hold(asset)
        lock = session.store.build_lock(asset)
        lock.acquire(
            on_wait=lambda pid: session.reporter.message(f"{title}: waiting for process {pid} to finish this asset")
        )
        with lock:
            session.store.recover(asset)
            marked = session.store.marked(asset)
            deep = session.deep or marked
            outcome = self._look(session, request, asset, title, deep)
            if outcome.status == "HIT" and marked:
                session.store.unmark(asset)
            if outcome.status != "HIT":
                if not is_writable(session.store.root):
                    raise ValueError(
                        f"{session.store.root} is read-only, and {title} has to be made there ({outcome.reason}); make "
                        "it writable or choose another --root"
                    )
                session.reporter.begins(outcome)
                if session.store.published(asset):
                    session.store.demote(asset, deep=deep)
                if session.store.published(asset):  # whole again without the files that did not belong
                    outcome.asset = session.store.asset(asset.kind, asset.key)
                else:
                    try:
                        self._work(session, request, arguments, asset, outcome, started)
                    except Exception as error:
                        earlier = session.store.assets(self.kind)
                        if sentence := disk_sentence(error, session.store.workspace(asset), earlier):
                            raise ValueError(sentence) from error
                        raise
        outcome.seconds = time.perf_counter() - started
        session.add(outcome)
        session.reporter.ends(outcome)
        return outcome

    def _work(
        self,
        session: Session,
        request: Request,
        arguments: Mapping[str, Any],
        asset: Asset,
        outcome: Outcome,
        started: float,
    ) -> None:
        if threading.current_thread() is not threading.main_thread():
            _import_transformers()
        workspace = session.store.workspace(asset)
        workspace.folder.mkdir(parents=True, exist_ok=True)
        workspace.sweep(keep=_files_of(workspace.finished()))  # all else is what a kill left
        predecessors = session.store.assets(self.kind)
        code = f"{self.version} {request.code}"
        job = Job(self.name, outcome.stage, workspace, session, predecessors, code, self.objective)
        for value in request.inputs.values():
            if isinstance(value, Asset):
                value.fetch(tell=session.reporter.message)
        result = self.function(job, **arguments)  # type: ignore[call-arg]
        for value in request.inputs.values():
            if isinstance(value, RawInput):
                value.require_unchanged()
        units, files = _inventory(workspace)
        manifest = Manifest(
            stage=self.name,
            kind=self.kind,
            key=asset.key,
            version=self.version,
            code=request.code,
            config=request.config,
            inputs=tuple(_input_record(name, value) for name, value in request.inputs.items()),
            files=files,
            units=units,
            fingerprint=fingerprint(files),
            counts=dict(result.counts),
            metrics=dict(result.metrics),
            pictures=tuple(result.pictures),
            seconds=round(time.perf_counter() - started, 3),
            reason=outcome.reason,
            software=software_versions(),
            machines=tuple(dict(machine) for machine in result.machines),
            builds=request.builds,
            created_at=now(),
        )
        outcome.asset = session.store.publish(asset, manifest)


def _import_transformers() -> None:
    """Import it at once, before stages in other threads do.

    It puts another module into its own place while it is imported, and Python gives the first, empty one to a thread
    that asks for it meanwhile: "cannot import name".
    """
    with _importing:
        importlib.import_module("transformers")


def _built(arguments: Mapping[str, Any]) -> set[str]:
    return {name for value in arguments.values() for name in named(value)}


def stage(
    kind: str, version: int = 1, objective: str = ""
) -> Callable[[Callable[Concatenate[Job, P], StageResult]], Stage[P]]:
    """Declare a stage that makes assets of a kind. The function takes a `Job` and keyword arguments.

    Arguments that are assets or raw inputs are inputs; all others are config and enter the key by value, except
    configs with `IN_KEY = False`, which say how the work is carried out. Raise `version` when the same code and config
    should nevertheless give something new. `objective` is what is trained, or judged by, as `module:Class`.

    Into the key goes the code of the stage's module, of its objective, and of what config values name in `BUILDS`, and
    named when the inputs were made; each with everything that it imports.
    """
    return lambda function: Stage(function, kind, version, objective)


def side_by_side(branches: Sequence[Callable[[], Any]], at_once: int) -> list[Any]:
    """Call branches of a pipeline that do not need each other, so many at once; return what each came to, in order.

    A plan walks them one after another. Where one fails, those under way still end, no further one begins, and the
    first failure is raised.
    """
    if at_once < 2 or len(branches) < 2 or current_session().planning:
        return [branch() for branch in branches]
    return in_threads([partial(copy_context().run, branch) for branch in branches], at_once)


def in_threads(calls: Sequence[Callable[[], Any]], at_once: int) -> list[Any]:
    """Make calls in threads, as `side_by_side` does; Ctrl-C ends them and what they wait for, or leaves them behind."""
    pool = ThreadPoolExecutor(at_once)
    futures = [pool.submit(children.in_thread, call) for call in calls]
    try:
        wait(futures, return_when=FIRST_EXCEPTION)
        pool.shutdown(wait=True, cancel_futures=True)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        children.end()
        wait([future for future in futures if not future.cancelled()], timeout=PATIENCE)
        raise
    return [future.result() for future in sorted(futures, key=lambda future: future.cancelled())]


def raw_input(name: str, paths: Sequence[Path]) -> Any:
    """Return raw files as a stage input; in a plan, `Pending` where many bytes would have to be read first."""
    session = current_session()
    if isinstance(paths, FoundFiles) and paths.hidden:
        session.reporter.message(f"{name}: hidden files are passed over ({len(paths.hidden)}, e.g. {paths.hidden[0]})")
    if isinstance(paths, FoundFiles) and (told := paths.told()):
        session.reporter.message(f"{name}: {told}")
    index = RawIndex(session.store.root / ".raw.sqlite")
    if session.planning:
        _, unknown = index.split(paths)
        if sum(path.stat().st_size for path in unknown) > PLAN_HASH_LIMIT:
            return Pending(f"{name} has {len(unknown)} new or changed files, the first is {unknown[0]}")

    def progress(done: int, total: int) -> None:
        session.reporter.progress(f"hash {name}", done, total)

    raw = index.read(name, paths, deep=session.deep, on_progress=progress)
    session.read(raw)
    return raw


def _inventory(workspace: Workspace) -> tuple[tuple[UnitEntry, ...], tuple[FileRecord, ...]]:
    """List units and their files, and hash the stage's own: all that it wrote in this run under no temporary name."""
    records = workspace.finished()
    files = {file.path: file for record in records.values() for file in record.files}
    for name in walk_files(workspace.folder):
        if name not in files and not is_temporary(name):
            path = workspace.folder / name
            files[name] = FileRecord(path=name, size=path.stat().st_size, sha256=file_sha256(path))
    units = tuple(
        UnitEntry(id=r.id, key=r.key, files=tuple(f.path for f in r.files), result=r.result) for r in records.values()
    )
    return units, tuple(files[name] for name in sorted(files))


def _files_of(records: Mapping[str, UnitRecord]) -> set[str]:
    return {file.path for record in records.values() for file in record.files}


def _input_record(name: str, value: Input) -> InputRecord:
    if isinstance(value, Asset):
        return InputRecord(name=name, kind=value.kind, key=value.key, fingerprint=value.fingerprint)
    files = tuple(FileRecord(path=str(f.path), size=f.size, sha256=f.sha256) for f in value.files)
    return InputRecord(name=name, kind="raw", key=value.name, fingerprint=value.fingerprint, files=files)


def _run_as_prefect_task(stage: Stage[Any], session: Session, arguments: Mapping[str, Any]) -> Asset:
    """Run a stage as a Prefect task; the store owns the cache, so Prefect's own stays off."""
    from prefect import task
    from prefect.cache_policies import NO_CACHE
    from prefect.states import Completed, Failed

    @task(name=stage.title(arguments), description=stage.__doc__, cache_policy=NO_CACHE, persist_result=False)
    def run(inputs: list[Asset]) -> State | Asset | None:
        try:
            outcome = stage.execute(session, arguments)
        except ValueError as error:
            return Failed(message=str(error), data=error)
        if outcome.status == "HIT":
            return Completed(name="Cached", message=outcome.reason, data=outcome.asset)
        return outcome.asset

    state = run([value for value in arguments.values() if isinstance(value, Asset)], return_state=True)
    asset = state.result()
    assert isinstance(asset, Asset)
    return asset


class Dashboard:
    """The Prefect view of a run: logs, a progress artifact, a result table, pictures, and the reason."""

    def __init__(self) -> None:
        self._bars: dict[str, UUID] = {}
        self._pictures: dict[str, UUID] = {}
        self._updated = 0.0

    def begins(self, outcome: Outcome) -> None:
        """Log why a stage works, and show an empty bar."""
        _logger().info("%s %s: %s", outcome.label, outcome.stage, outcome.reason)
        self._move(outcome.stage, 0.0, outcome.reason)

    def progress(self, stage: str, done: int, total: int, words: str = "") -> None:
        """Move the progress artifact, at most once a second."""
        if done == total or time.monotonic() - self._updated > 1:
            self._move(stage, 100.0 * done / total, f"{stage}: {done}/{total} {words}".rstrip())

    def _move(self, stage: str, percent: float, words: str) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        if stage in self._bars:
            _now(update_progress_artifact(self._bars[stage], percent, description=words))
        else:
            key = f"{_slug(stage)}-progress"
            self._bars[stage] = _now(create_progress_artifact(percent, key=key, description=words))
        self._updated = time.monotonic()

    def picture(self, stage: str, name: str, png: bytes) -> None:
        """Show a picture in the place of the last one of this name."""
        from prefect.artifacts import create_image_artifact
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.actions import ArtifactUpdate

        key = _slug(f"{stage}-{name}")
        image = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        if key not in self._pictures:
            self._pictures[key] = _now(create_image_artifact(image, key=key, description=name))
            return
        with get_client(sync_client=True) as client:
            client.update_artifact(self._pictures[key], ArtifactUpdate(data=image))

    def message(self, text: str) -> None:
        """Log a note."""
        _logger().info("%s", text)

    def ends(self, outcome: Outcome) -> None:
        """Leave a table of what came out, and its pictures; those of a hit are there from the run that made it."""
        from prefect.artifacts import create_table_artifact

        asset = outcome.asset
        assert asset is not None
        if outcome.status == "HIT":
            _logger().info("HIT %s: %s", outcome.stage, outcome.reason)
            return
        manifest = asset.manifest
        self._move(outcome.stage, 100.0, f"{outcome.stage}: done in {manifest.seconds:.1f} s")
        name = f"{asset.kind}/{asset.key[:12]}"
        _logger().info("%s is done: %s in %.1f s", name, describe_size(asset.size), manifest.seconds)
        facts = {"asset": f"{asset.kind}/{asset.key}", "size": describe_size(asset.size), "files": len(manifest.files)}
        told = {**facts, **manifest.counts, **manifest.metrics}
        rows = [{"what": what, "value": describe_value(value)} for what, value in told.items()]
        title = f"**{outcome.label}** {outcome.reason}"
        _now(create_table_artifact(table=rows, key=_slug(outcome.stage), description=title))
        for name in manifest.pictures:
            self.picture(outcome.stage, Path(name).stem, (asset.folder / name).read_bytes())


def dashboard_reporter() -> Reporter:
    """Return the reporter that feeds the Prefect dashboard."""
    return Dashboard()


def _now(value: Any) -> Any:
    assert not inspect.isawaitable(value), "stages run in synchronous flows"
    return value


def _logger() -> Any:
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_logger, get_run_logger

    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("millrace")


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
