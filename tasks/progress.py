"""The terminal view of a run: a line per stage, a bar while it works, and the reason why it ran."""

from __future__ import annotations

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

STYLES = {"HIT": "green", "RUN": "yellow", "RESUME": "cyan"}


class Silent:
    """A reporter for callers that look at the outcomes themselves."""

    def begins(self, outcome: Outcome) -> None:
        """Say nothing."""

    def progress(self, stage: str, done: int, total: int, words: str = "") -> None:
        """Say nothing."""

    def message(self, text: str) -> None:
        """Say nothing."""

    def ends(self, outcome: Outcome) -> None:
        """Say nothing."""


class Terminal:
    """Rich lines and bars on a terminal; plain lines every few seconds where output is piped."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._printed = time.monotonic()

    def begins(self, outcome: Outcome) -> None:
        """Print why a stage works."""
        self._console.print(
            f"[{STYLES[outcome.status]}]{outcome.label:<7}[/] [bold]{outcome.stage}[/]  {escape(outcome.reason)}",
            highlight=False,
            soft_wrap=True,
        )

    def progress(self, stage: str, done: int, total: int, words: str = "") -> None:
        """Move the bar."""
        if not self._console.is_terminal:
            if done == total or time.monotonic() - self._printed > 5:
                self._printed = time.monotonic()
                self._console.print(
                    f"        {stage}: {done}/{total}  {words}".rstrip(), highlight=False, soft_wrap=True
                )
            return
        if self._bar is None:
            self._bar = Progress(
                TextColumn("        {task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[words]}", style="dim"),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(stage, total=total, words=words)
        assert self._task is not None
        self._bar.update(self._task, completed=done, total=total, description=stage, words=words)
        if done == total:
            self._close_bar()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._task = None, None

    def message(self, text: str) -> None:
        """Print a note."""
        self._console.print(f"        {escape(text)}", highlight=False, style="dim", soft_wrap=True)

    def ends(self, outcome: Outcome) -> None:
        """Print what came out."""
        self._close_bar()
        asset = outcome.asset
        assert asset is not None, "a stage that ended has an asset"
        if outcome.status == "HIT":
            self._console.print(
                f"[green]HIT    [/] [bold]{outcome.stage}[/]  {asset.kind}/{asset.key[:12]}: {escape(outcome.reason)}",
                highlight=False,
                soft_wrap=True,
            )
            return
        counts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in asset.manifest.counts.items())
        self._console.print(
            f"        {asset.kind}/{asset.key[:12]}  {describe_size(asset.size)} in {outcome.seconds:.1f} s"
            + (f"; {escape(counts)}" if counts else ""),
            highlight=False,
            soft_wrap=True,
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

    def ends(self, outcome: Outcome) -> None:
        """Tell all."""
        for reporter in self._reporters:
            reporter.ends(outcome)
