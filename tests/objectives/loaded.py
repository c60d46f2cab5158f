"""Runs trainings one after another, each in a process that has imported libraries alone, and tells what it loaded.

python -m tests.objectives.loaded JOB...      a JSON list of module names per line, as each training has loaded them
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from types import SimpleNamespace

UNWATCHED = SimpleNamespace(previews=lambda *of: {}, watched=lambda *of: {}, curves=lambda *of: {})
"""In place of what draws: pictures are in no key, and nothing that is kept comes from them."""
LIBRARIES = ("torch", "torch.distributed.checkpoint", "transformers", "peft", "bitsandbytes", "zarr", "scipy.ndimage")


def main(jobs: list[str]) -> None:
    """Train, and tell."""
    for library in LIBRARIES:
        import_module(library)
    told = os.fdopen(os.dup(1), "w")
    for job in jobs:
        if not (child := os.fork()):
            os.dup2(2, 1)  # events of the training are nobody's business
            worker = import_module("tasks.training.worker")
            os.environ[worker.PARENT] = str(os.getppid())
            import_module("tasks.training.loop").live = lambda: UNWATCHED
            worker.main(job)
            told.write(json.dumps(sorted(name for name in sys.modules if sys.modules[name])) + "\n")
            told.flush()
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
