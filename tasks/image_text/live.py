"""How a running crawl is watched: each worker leaves its counts in a file, and whoever waits adds them up."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage.assets import SCRATCH, UnitRecord, describe_size
from storage.shard_set import OK

IN_KEY = False

LIVE = f"{SCRATCH}/live"
SPAN = 20.0
"""Seconds over which the rate is taken."""
SHOWN = 4
"""Statuses that are named."""


@dataclass(slots=True)
class Tally:
    """What became of images so far, and the bytes that arrived."""

    statuses: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    unconverted: int = 0
    """Images that were stored without applying their colour profile."""

    def count(self, status: str, size: int) -> None:
        """Count an image."""
        self.statuses[status] += 1
        self.bytes += size

    def add(self, facts: Mapping[str, Any]) -> None:
        """Add what another tally gave as JSON."""
        self.statuses.update(facts["status_dict"])
        self.bytes += facts["bytes"]
        self.unconverted += facts.get("unconverted", 0)

    def as_json(self) -> dict[str, Any]:
        """Return the counts."""
        facts = {"images": self.statuses.total(), "status_dict": dict(self.statuses), "bytes": self.bytes}
        return facts | ({"unconverted": self.unconverted} if self.unconverted else {})

    def save(self, path: Path) -> None:
        """Leave the counts where `Watch` finds them; who comes in between finds nothing for once."""
        path.write_text(json.dumps(self.as_json()))


class Watch:
    """Adds up finished shards and those that workers are at, and moves the bar."""

    def __init__(self, folder: Path, total: int, move: Callable[[int, int, str], None]) -> None:
        self._folder, self._total, self._move = folder, total, move
        self._seen: deque[tuple[float, int, int]] = deque()

    def __call__(self, done: Mapping[str, UnitRecord]) -> None:
        """Look, and tell."""
        tally = Tally()
        for record in done.values():
            tally.add(record.result)
        for path in self._folder.glob("*.json"):
            if path.stem not in done:
                try:
                    tally.add(json.loads(path.read_bytes()))
                except (ValueError, FileNotFoundError):
                    continue
        self._move(tally.statuses.total(), self._total, self._words(tally))

    def _words(self, tally: Tally) -> str:
        """Return e.g. `412 images/s, 66.0 MB/s, 3:20 left, ok 91 %, http_404 5 %`."""
        now, images = time.monotonic(), tally.statuses.total()
        self._seen.append((now, images, tally.bytes))
        while len(self._seen) > 2 and now - self._seen[0][0] > SPAN:
            self._seen.popleft()
        then, images_then, bytes_then = self._seen[0]
        words = []
        if now > then and images > images_then:
            rate = (images - images_then) / (now - then)
            minutes, seconds = divmod(round((self._total - images) / rate), 60)
            words = [f"{rate:.0f} images/s", f"{describe_size((tally.bytes - bytes_then) / (now - then))}/s"]
            words += [f"{minutes}:{seconds:02d} left"] if images < self._total else []
        ranked = sorted(tally.statuses.items(), key=lambda item: (item[0] != OK, -item[1], item[0]))
        return ", ".join([*words, *(f"{status} {count / images:.0%}" for status, count in ranked[:SHOWN])])
