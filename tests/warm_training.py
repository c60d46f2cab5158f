"""A training process that was forked warm: its parent is what waits for it in place of the stage."""

from __future__ import annotations

import os
import sys

from tasks.training import worker

if __name__ == "__main__":
    os.environ[worker.PARENT] = str(os.getppid())
    worker.main(sys.argv[1])
