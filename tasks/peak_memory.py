"""How much memory this process has held."""

from __future__ import annotations

import resource
from pathlib import Path

IN_KEY = False

STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Return the most memory that this process has held at once.

    Linux tells it apart from that of the program that started this one, which `getrusage` counts, too.
    """
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
