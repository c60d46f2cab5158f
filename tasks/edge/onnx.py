"""ONNX files, run by ONNX Runtime: all of a model but its decoder."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def _give_back() -> None:
    """Return freed memory to the system, where its C library offers that; else it keeps tens of megabytes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class OnnxFile:
    """What an ONNX file computes; its weights are in memory only while it does."""

    def __init__(self, path: Path, threads: int = 2) -> None:
        if not path.is_file():
            raise ValueError(f"{path} is missing; copy the whole folder that was exported")
        self._path, self._threads = path, threads

    def __call__(self, *inputs: NDArray[Any]) -> list[Floats]:
        """Return the outputs of single inputs, all without a batch's axis."""
        session = self._session()
        names = [entry.name for entry in session.get_inputs()]
        found = session.run(None, {name: value[None] for name, value in zip(names, inputs, strict=True)})
        outputs = [np.array(value[0]) for value in found]
        del session, found
        _give_back()
        return outputs

    def _session(self) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # an arena keeps what it once took
        options.log_severity_level = 3
        options.add_session_config_entry("session.disable_prepacking", "1")  # a second copy of all weights
        return onnxruntime.InferenceSession(str(self._path), options, providers=["CPUExecutionProvider"])
