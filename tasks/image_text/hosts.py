"""Whose turn it is: jobs by host, so many of each in flight, and none at a host that asked for a pause."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

IN_KEY = False

Job = TypeVar("Job")


@dataclass(slots=True)
class _Host(Generic[Job]):
    waiting: deque[Job] = field(default_factory=deque)
    in_flight: int = 0
    turns: int = 0
    """How often the host stands in the line of turns."""
    pauses: int = 0
    """Pauses that have not ended."""


class HostQueues(Generic[Job]):
    """Hands out jobs host by host on the running event loop; a slow or crowded host delays no other.

    Every job that `get` returns goes back to `done`, or to `again` to be handed out once more.
    """

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._hosts: dict[str, _Host[Job]] = {}
        self._line: asyncio.Queue[str | None] = asyncio.Queue()
        self._open = 0

    def put(self, host: str, job: Job) -> None:
        """Add a job."""
        self._open += 1
        self._hosts.setdefault(host, _Host()).waiting.append(job)
        self._stand_in_line(host)

    def _stand_in_line(self, host: str) -> None:
        place = self._hosts[host]
        while not place.pauses and place.turns < len(place.waiting) and place.turns + place.in_flight < self._per_host:
            place.turns += 1
            self._line.put_nowait(host)

    async def get(self) -> tuple[str, Job] | None:
        """Return the next host and job; None once all jobs are done. At least one must have been put."""
        while (host := await self._line.get()) is not None:
            place = self._hosts[host]
            place.turns -= 1
            if not place.pauses:
                place.in_flight += 1
                return host, place.waiting.popleft()
        self._line.put_nowait(None)  # for the next one who asks
        return None

    def done(self, host: str) -> None:
        """Take a job back that is finished."""
        self._open -= 1
        self._land(host)
        if not self._open:
            self._line.put_nowait(None)

    def again(self, host: str, job: Job, pause: float, *, whole_host: bool) -> None:
        """Take a job back that is handed out again after a pause of so many seconds, of the job or of its host."""
        place = self._hosts[host]
        place.pauses += whole_host
        self._land(host)
        asyncio.get_running_loop().call_later(pause, self._resume, host, job, whole_host)

    def _land(self, host: str) -> None:
        self._hosts[host].in_flight -= 1
        self._stand_in_line(host)

    def _resume(self, host: str, job: Job, whole_host: bool) -> None:
        place = self._hosts[host]
        place.pauses -= whole_host
        place.waiting.append(job)
        self._stand_in_line(host)
