"""torchrun in a process that ends with the one that started it, as its ranks end with it."""

from __future__ import annotations

import os
import sys

from tasks.training.worker import PARENT
from tasks.units import die_with_parent


def main(ranks: str, job: str) -> None:
    """Run the training process as so many ranks on this machine."""
    die_with_parent(int(os.environ[PARENT]))
    os.environ[PARENT] = str(os.getpid())
    from torch.distributed.run import main as torchrun

    torchrun(["--standalone", "--nproc-per-node", ranks, "--max-restarts", "0", "-m", "tasks.training.worker", job])


if __name__ == "__main__":
    main(*sys.argv[1:])
