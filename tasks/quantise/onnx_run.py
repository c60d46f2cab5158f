"""ONNX files that stand in for a module of torch, and what they cost."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

REPOSITORY = Path(__file__).parent.parent.parent
ERRORS = 3
ROUNDS = 10


class OnnxRunner:
    """A file that computes; it is opened when it is first used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._session: Any = None

    def __call__(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the outputs for inputs by name; `ValueError` where the file cannot be read."""
        found = self._opened().run(None, {name: value.numpy() for name, value in inputs.items()})
        return [torch.from_numpy(value) for value in found]

    def _opened(self) -> Any:
        if self._session is None:
            from onnxruntime import InferenceSession, SessionOptions

            options = SessionOptions()
            options.log_severity_level, options.intra_op_num_threads = ERRORS, torch.get_num_threads()
            try:
                self._session = InferenceSession(self._path, options)
            except Exception as error:  # onnxruntime raises kinds of its own
                raise ValueError(f"{self._path} cannot be read as an ONNX model ({error})") from None
        return self._session


def cost(path: Path, inputs: Mapping[str, Tensor]) -> dict[str, float]:
    """Return `milliseconds` of a file for such inputs on one core, and `peak_mb` of a fresh process that runs it."""
    with tempfile.TemporaryDirectory() as name:
        fed = Path(name) / "inputs.npz"
        arrays: dict[str, Any] = {key: value.numpy() for key, value in inputs.items()}
        np.savez(fed, **arrays)
        command = [sys.executable, "-m", "tasks.quantise.onnx_probe", str(path.absolute()), str(fed), str(ROUNDS)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChildProcessError(f"ONNX Runtime ended with code {done.returncode}: {done.stderr.strip()[-500:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
