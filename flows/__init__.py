"""What runs: one file per pipeline, and the `millrace` command line."""

import os

# Before NumPy is loaded: many small factorisations in two threads wait for each other, minutes on a busy machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
