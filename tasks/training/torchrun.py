"""torchrun in a process that ends with the one that started it, as its ranks end with it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from typing import NoReturn

from tasks.training.worker import PARENT
from tasks.units import die_with_parent

IN_KEY = False


def main(ranks: str, job: str) -> None:
    """Run the training process as so many ranks on this machine."""
    die_with_parent(int(os.environ[PARENT]))
    os.environ[PARENT] = str(os.getpid())
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    logging.disable()  # each rank tells its own errors
    try:
        torchrun(["--standalone", "--nproc-per-node", ranks, "--max-restarts", "0", "-m", "tasks.training.worker", job])
    except ChildFailedError as error:
        _end_as(error.get_first_failure()[1].exitcode)


def _end_as(status: int) -> NoReturn:
    """End as a rank did: by the same signal, or with the same status."""
    if status < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
