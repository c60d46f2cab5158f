"""The session: which store, workers and engine the stages of one pipeline run use, and what became of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from storage.assets import Asset, AssetStore
from storage.locks import FileLock
from storage.raw import RawInput
from tasks.code import Code
from tasks.units import Workers

IN_KEY = False

Status = Literal["HIT", "RESUME", "RUN"]


@dataclass(frozen=True, slots=True)
class Pending:
    """Stands for an asset that does not exist yet while a plan is made; `reason` says why."""

    reason: str


@dataclass(slots=True)
class Outcome:
    """What a stage did, or in a plan would do, and why."""

    stage: str
    status: Status
    reason: str
    asset: Asset | None = None
    done: int = 0
    total: int | None = None
    seconds: float = 0.0
    module: str = ""
    """In a plan: where the stage's code is."""
    trains: tuple[str, ...] = ()
    """In a plan: what its training will import, as `module:Class`, the objective first; empty where it is none."""

    @property
    def label(self) -> str:
        """The status for people, e.g. `RESUME 37/64`."""
        if self.status != "RESUME":
            return self.status
        return f"RESUME {self.done}/{'?' if self.total is None else self.total}"


class Reporter(Protocol):
    """Where a run is watched: the terminal, the Prefect dashboard, or both."""

    def begins(self, outcome: Outcome) -> None:
        """A stage starts to work; `outcome` says why."""

    def progress(self, stage: str, done: int, total: int, words: str = "") -> None:
        """So much of it is finished; `words` say more, e.g. how fast it goes."""

    def message(self, text: str) -> None:
        """Something that a person would want to know."""

    def picture(self, stage: str, name: str, png: bytes) -> None:
        """How something looks while a stage works, e.g. a training's curves, in the place of the last so named."""

    def ends(self, outcome: Outcome) -> None:
        """A stage has its asset."""


@dataclass
class Session:
    """Everything that a stage call needs besides its inputs; none of it enters a key."""

    store: AssetStore
    reporter: Reporter
    workers: Workers = field(default_factory=lambda: Workers("inline"))
    engine: Literal["inline", "prefect"] = "inline"
    planning: bool = False
    deep: bool = False
    outcomes: list[Outcome] = field(default_factory=list)
    on_raw: Callable[[RawInput], Any] = lambda raw: None
    on_hold: Callable[[Asset], Any] = lambda asset: None
    on_outcome: Callable[[Outcome], Any] = lambda outcome: None
    code: Code = field(init=False)
    _held: dict[str, FileLock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.code = Code(self.store.root / ".code.json")

    def add(self, outcome: Outcome) -> None:
        """Note what became of a stage."""
        with self._lock:
            self.outcomes.append(outcome)
            self.on_outcome(outcome)

    def read(self, raw: RawInput) -> None:
        """Note what is read from outside."""
        with self._lock:
            self.on_raw(raw)

    def hold(self, asset: Asset) -> None:
        """Keep gc from an asset, there or to come, until the session ends."""
        name = str(asset.folder)
        with self._lock:
            if name not in self._held:
                lock = self.store.use_lock(asset)
                lock.acquire()
                self._held[name] = lock
                self.on_hold(asset)

    @contextlib.contextmanager
    def active(self) -> Iterator[Session]:
        """Make this the session of all stage calls in the block."""
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)
            for lock in self._held.values():
                lock.release()
            self._held.clear()


_current: ContextVar[Session] = ContextVar("millrace_session")


def current_session() -> Session:
    """Return the active session; stages cannot be called without one."""
    try:
        return _current.get()
    except LookupError:
        raise RuntimeError("no session is active; call stages inside `with Session(...).active():`") from None
