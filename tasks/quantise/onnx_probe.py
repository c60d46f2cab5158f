"""How long a file for ONNX Runtime computes, and how much memory that takes, in a process that imports no torch.

python -m tasks.quantise.onnx_probe MODEL.onnx INPUTS.npz ROUNDS

Prints the median milliseconds of a round on one core, and the most memory that the process has held.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
from onnxruntime import InferenceSession, SessionOptions

from tasks.peak_memory import peak_bytes


def main(path: str, inputs: str, rounds: int) -> None:
    """Compute and tell."""
    options = SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = InferenceSession(path, options)
    fed = dict(np.load(inputs))
    session.run(None, fed)
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        session.run(None, fed)
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"milliseconds": 1e3 * statistics.median(seconds), "peak_mb": peak_bytes() / 1e6}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
