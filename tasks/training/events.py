"""What a training process tells the one that started it: marked JSON lines on standard output."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import Any

IN_KEY = False

MARK = "\x1emillrace "
AFTERMATH = 3.0  # seconds in which a rank is ended whose error is but that another rank has died


def emit(kind: str, **content: Any) -> None:
    """Send an event to the launcher; one write, so that lines of several ranks do not mix."""
    match kind:
        case "message":
            content["text"] = re.sub(r"\bnan\b", "undefined", content["text"])
        case "error" if not content["wrong_input"] and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            time.sleep(AFTERMATH)
    sys.stdout.write(f"{MARK}{json.dumps({'event': kind, **content})}\n")
    sys.stdout.flush()


def parse(line: str) -> dict[str, Any] | None:
    """Return the event of a line, None where it is ordinary output."""
    return json.loads(line[line.index(MARK) + len(MARK) :]) if MARK in line else None
