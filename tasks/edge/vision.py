"""Vision encoder and adapter in an ONNX file, run by ONNX Runtime."""

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


class Vision:
    """From pixels to vectors; weights are in memory only while it computes."""

    def __init__(self, path: Path, threads: int = 2) -> None:
        if not path.is_file():
            raise ValueError(f"there is no vision encoder at {path}; copy the whole folder that was exported")
        self._path, self._threads = path, threads

    def see(self, pixels: NDArray[np.uint8]) -> dict[str, Floats]:
        """Return what the file computes of RGB pixels (3, side, side), by name, e.g. `prefix` (K, C)."""
        session = self._session()
        names = [output.name for output in session.get_outputs()]
        values = session.run(names, {session.get_inputs()[0].name: pixels[None]})
        found = {name: np.array(value[0]) for name, value in zip(names, values, strict=True)}
        del session, values
        _give_back()
        return found

    def _session(self) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # an arena keeps what it once took
        options.log_severity_level = 3
        options.add_session_config_entry("session.disable_prepacking", "1")  # a second copy of all weights
        return onnxruntime.InferenceSession(str(self._path), options, providers=["CPUExecutionProvider"])
