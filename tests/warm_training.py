"""Training processes that start warm, for tests of what is trained; how they start and end is in tests/training."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tasks.training import launch, worker
from tests import warm


def start_warm(patch: pytest.MonkeyPatch) -> None:
    """Let the stages of this process fork their training processes, as long as the patch lasts."""
    start_cold = launch._start

    def start(job: Path, ranks: int) -> object:
        if ranks > 1 or not warm.AVAILABLE:
            return start_cold(job, ranks)
        return warm.WarmProcess(__name__, [str(job)], os.environ, warm.REPOSITORY, heard=True)

    patch.setattr(launch, "_start", start)


if __name__ == "__main__":
    os.environ[worker.PARENT] = str(os.getppid())
    worker.main(sys.argv[1])
