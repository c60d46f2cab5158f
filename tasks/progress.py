"""The terminal view of a run: a line per stage, a bar while it works, and the reason why it ran."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from storage.assets import describe_size
from tasks.session import Outcome, Reporter

IN_KEY = False

STYLES = {"HIT": "green", "RUN": "yellow", "RESUME": "cyan"}


class Silent:
    """A reporter for callers that look at the outcomes themselves."""

    def begins(self, outcome: Outcome) -> None:
        """Say nothing."""

    def progress(self, stage: str, done: int, total: int, words: str = "") -> None:
        """Say nothing."""

    def message(self, text: str) -> None:
        """Say nothing."""

    def picture(self, stage: str, name: str, png: bytes) -> None:
        """Show nothing."""

    def ends(self, outcome: Outcome) -> None:
        """Say nothing."""


class Bars:
    """The bars of all that is under way, below the lines that are printed; runs in several threads share them."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("        {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[words]}", style="dim"),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def move(self, name: str, done: int, total: int, words: str) -> None:
        """Move a bar; it appears when it is first moved."""
        with self._lock:
            if not self._tasks:
                self._progress.start()
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, total=total, words=words)
            self._progress.update(self._tasks[name], completed=done, total=total, words=words)

    def close(self, name: str) -> None:
        """Take a bar away, if there is one."""
        with self._lock:
            if name in self._tasks:
                self._progress.remove_task(self._tasks.pop(name))
                if not self._tasks:
                    self._progress.stop()


class Terminal:
    """Rich lines and bars on a terminal; plain lines every few seconds where output is piped.

    Where several pipelines run at once, each has a terminal with its own name in front of every line, and all share the
    `bars`.
    """

    def __init__(self, console: Console, pipeline: str = "", bars: Bars | None = None) -> None:
        self._console = console
        self._bars = bars or Bars(console)
        self._before = f"{pipeline:<9} " if pipeline else ""
        self._printed = time.monotonic()

    def _print(self, text: str, style: str | None = None) -> None:
        before = f"[dim]{self._before}[/]" if self._before else ""
        self._console.print(before + text, highlight=False, soft_wrap=True, style=style)

    def begins(self, outcome: Outcome) -> None:
        """Print why a stage works."""
        style = STYLES[outcome.status]
        self._print(f"[{style}]{outcome.label:<7}[/] [bold]{outcome.stage}[/]  {escape(outcome.reason)}")

    def progress(self, stage: str, done: int, total: int, words: str = "") -> None:
        """Move the bar."""
        name = self._before + stage
        if self._console.is_terminal and done < total:
            self._bars.move(name, done, total, words)
        elif self._console.is_terminal:
            self._bars.close(name)
        elif done == total or time.monotonic() - self._printed > 5:
            self._printed = time.monotonic()
            self._print(f"        {stage}: {done}/{total}  {words}".rstrip())

    def message(self, text: str) -> None:
        """Print a note."""
        self._print(f"        {escape(text)}", style="dim")

    def picture(self, stage: str, name: str, png: bytes) -> None:
        """Show nothing: a terminal has no pictures."""

    def ends(self, outcome: Outcome) -> None:
        """Print what came out."""
        self._bars.close(self._before + outcome.stage)
        asset = outcome.asset
        assert asset is not None, "a stage that ended has an asset"
        if outcome.status == "HIT":
            found = f"{asset.kind}/{asset.key[:12]}: {escape(outcome.reason)}"
            self._print(f"[green]HIT    [/] [bold]{outcome.stage}[/]  {found}")
            return
        counts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in asset.manifest.counts.items())
        self._print(
            f"        {asset.kind}/{asset.key[:12]}  {describe_size(asset.size)} in {outcome.seconds:.1f} s"
            + (f"; {escape(counts)}" if counts else "")
        )


class Both:
    """Passes everything on to several reporters."""

    def __init__(self, reporters: Sequence[Reporter]) -> None:
        self._reporters = reporters

    def begins(self, outcome: Outcome) -> None:
        """Tell all."""
        for reporter in self._reporters:
            reporter.begins(outcome)

    def progress(self, stage: str, done: int, total: int, words: str = "") -> None:
        """Tell all."""
        for reporter in self._reporters:
            reporter.progress(stage, done, total, words)

    def message(self, text: str) -> None:
        """Tell all."""
        for reporter in self._reporters:
            reporter.message(text)

    def picture(self, stage: str, name: str, png: bytes) -> None:
        """Show all."""
        for reporter in self._reporters:
            reporter.picture(stage, name, png)

    def ends(self, outcome: Outcome) -> None:
        """Tell all."""
        for reporter in self._reporters:
            reporter.ends(outcome)
