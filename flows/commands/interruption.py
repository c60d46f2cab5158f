"""Ctrl-C and SIGTERM: a run ends at once and says that the same command goes on."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from rich.console import Console

from flows.runs import cancel_own_runs
from tasks.units import children


@contextlib.contextmanager
def interruptible(errors: Console) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the block, and with it the process, in one sentence; a second signal kills it.

    Threads that cannot be interrupted are not waited for: what they work on is safe, as in a kill.
    """
    heard: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt

    sys.warnoptions.append("ignore:resource_tracker:UserWarning")  # which mops up after killed workers, and says so
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as a shell's background jobs have it
            signal.signal(number, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        cancel_own_runs()
        errors.print(
            "[bold yellow]interrupted:[/] finished stages, units and checkpoints are kept; the same command goes on",
            highlight=False,
            soft_wrap=True,
        )
        _leave(128 + (heard or [signal.SIGINT])[0])


def _leave(status: int) -> NoReturn:
    """End the process as `sys.exit` does, but wait neither for threads nor until libraries are taken apart."""
    if not children.threads_work():
        threading._shutdown()  # type: ignore[attr-defined]  # Prefect says good-bye here
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
