"""Shows one image to the edge engine in a fresh process, which remembers it, and lets it be described.

Arguments: folder, image, tokens. Answers with the peak of its resident memory, and seconds.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from tasks.edge.engine import EdgeEngine


def main(task: dict[str, Any]) -> None:
    """Caption, and answer."""
    began = time.perf_counter()
    engine = EdgeEngine(Path(task["folder"]))
    opened = time.perf_counter()
    engine.show(Path(task["image"]))
    marks = [time.perf_counter() for _ in engine.stream(longest=task["tokens"])]
    ended = time.perf_counter()
    position = engine.language.position
    first = marks[0] if marks else ended
    answer = {
        "peak_bytes": 1024 * int(status("VmHWM")),
        "file_bytes": 1024 * int(status("RssFile")),
        "positions": position,
        "open_seconds": opened - began,
        "first_seconds": first - opened,
        "caption_seconds": ended - opened,
        "foreign": sorted({"torch", "transformers"} & sys.modules.keys()),
    }
    print(json.dumps(answer), flush=True)


def status(field: str) -> str:
    """Return a value in KiB of this process's status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return line.split()[1]
    raise RuntimeError(f"the system does not tell {field}; measure on Linux")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
