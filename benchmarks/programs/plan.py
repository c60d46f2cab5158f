"""Times `millrace plan weather` with everything imported before; arguments: root, options."""

from __future__ import annotations

import io
import json
import sys
import time
from typing import Any

import rich.table  # noqa: F401 - imported here, so that the command finds it loaded
from rich.console import Console

import flows.runner
import flows.weather  # noqa: F401
from flows.commands import cli, running


def main(task: dict[str, Any]) -> None:
    """Plan once and answer with the seconds and what was printed."""
    out = io.StringIO()
    running.console = Console(file=out, width=200)
    begin = time.perf_counter()
    cli.app(["plan", "weather", "--root", task["root"], *task["options"]], standalone_mode=False)
    print(json.dumps({"seconds": time.perf_counter() - begin, "printed": out.getvalue()}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
