"""The edge engine in a process of its own, in an environment that has llama.cpp and no torch."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

REPOSITORY = Path(__file__).parent.parent.parent
ENVIRONMENT = ".venv-edge"


def edge_python() -> Path:
    """Return the interpreter that has llama.cpp: this one, or that of `make edge`; `ValueError` where none has."""
    if find_spec("llama_cpp"):
        return Path(sys.executable)
    python = Path(os.environ.get("MILLRACE_EDGE", REPOSITORY / ENVIRONMENT)) / "bin" / "python"
    if not python.exists():
        raise ValueError(
            "the edge engine needs llama.cpp, which is not installed; run make edge, or set MILLRACE_EDGE to an "
            "environment that has it"
        )
    return python


def edge_logits(
    path: Path, *, ids: NDArray[np.integer] | None = None, vectors: NDArray[np.floating] | None = None
) -> NDArray[np.float32]:
    """Return what llama.cpp computes of a GGUF file after every position, (N, K + L, vocabulary).

    Args:
        path: the file.
        ids: token ids (N, L).
        vectors: what stands before them in place of embeddings (N, K, C).

    Raises:
        ValueError: there is no llama.cpp, or it cannot read the file.
    """
    with tempfile.TemporaryDirectory() as name:
        inputs, outputs = Path(name) / "inputs.npz", Path(name) / "outputs.npz"
        given: dict[str, Any] = {}
        if ids is not None:
            given["ids"] = ids.astype(np.int32)
        if vectors is not None:
            given["vectors"] = vectors.astype(np.float32)
        np.savez(inputs, **given)
        command = [str(edge_python()), "-m", "tasks.edge.probe", *map(str, (path.absolute(), inputs, outputs))]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if done.returncode == 2:
            raise ValueError(done.stderr.strip().removeprefix("error: "))
        if done.returncode:
            raise RuntimeError(f"the edge engine ended with code {done.returncode}: {done.stderr.strip()}")
        logits: NDArray[np.float32] = np.load(outputs)["logits"]
        return logits
