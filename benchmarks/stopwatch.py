"""CPU and wall time of a piece of work. Only the standard library: peers' environments import this too."""

from __future__ import annotations

import resource
import time
from types import TracebackType
from typing import Self


class Stopwatch:
    """Measures a block: CPU-seconds of this process and of the children that it waited for, and wall seconds."""

    cpu = 0.0
    wall = 0.0

    def __enter__(self) -> Self:
        self._cpu, self._wall = cpu_seconds(), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cpu, self.wall = cpu_seconds() - self._cpu, time.perf_counter() - self._wall

    def as_json(self) -> dict[str, float]:
        """Return both times."""
        return {"cpu": round(self.cpu, 4), "wall": round(self.wall, 4)}


def cpu_seconds() -> float:
    """Return the user and system time of this process and of its finished children."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
