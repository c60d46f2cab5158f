"""Showing things to a frozen encoder once, in units: for stages whose result is what it sees of each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from storage.assets import Unit
from tasks.stage import Job
from tasks.units import UnitOutput

if TYPE_CHECKING:
    from torch import Tensor

_one_after_another = threading.Lock()
"""The number of torch's threads is the whole process's: of two that overlap, the last would set it back to one."""
INLINE = 10**9
WORTH_PROCESSES = 20_000
"""Things from which on the start of worker processes is worth it."""


def show_units(
    job: Job, show: Callable[[Path, Unit], UnitOutput], units: Sequence[Unit], things: int, device: str
) -> None:
    """Carry out units that show so many things, in processes where there are many and no GPU does it."""
    together = device == "cpu" and things >= WORTH_PROCESSES
    job.map(show, units, fan_out_from=2 if together else INLINE)


def seen_of(see: Callable[[Sequence[int]], Tensor], places: Sequence[int], batch: int) -> Tensor:
    """Return what is seen at places, (N, ...), `batch` at a time; on one thread, so that the bits hang on no cores."""
    import torch

    with _one_after_another:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return torch.cat([see(places[first : first + batch]) for first in range(0, len(places), batch)])
        finally:
            torch.set_num_threads(threads)
