"""What a training process tells the one that started it: marked JSON lines on standard output."""

from __future__ import annotations

import json
import sys
from typing import Any

MARK = "\x1emillrace "


def emit(kind: str, **content: Any) -> None:
    """Send an event to the launcher; one write, so that lines of several ranks do not mix."""
    sys.stdout.write(f"{MARK}{json.dumps({'event': kind, **content})}\n")
    sys.stdout.flush()


def parse(line: str) -> dict[str, Any] | None:
    """Return the event of a line, None where it is ordinary output."""
    return json.loads(line[line.index(MARK) + len(MARK) :]) if MARK in line else None
