"""A model's folder for a small board: the engine's own files beside those of the model.

`model.gguf` (`gguf_file.py`), `vision.onnx` (`onnx_file.py`), `tokenizer.json` and `config.json`; `memory.safetensors`,
`question.onnx` and `answer.onnx` with a memory; and the engine: `run.py`, its package `edge/`, `requirements.txt` and
`README.md`. Nothing in there imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from configs.vision_language import Fit
from storage.files import write_atomic

ENGINE = Path(__file__).parent.parent / "edge"
TEXTS = ("run.py", "requirements.txt", "README.md")
PACKAGE = ("__init__.py", "drawing.py", "engine.py", "language.py", "memory.py", "onnx.py", "picture.py", "rows.py")
FORMAT = 3


@dataclass(frozen=True, slots=True)
class EdgeMemory:
    """What the engine has to know of an episodic memory."""

    noise: float
    after: tuple[int, ...]
    """Token ids behind those of a question."""
    longest: int
    """Tokens of a question that are looked at."""
    rows: str
    """What the embeddings in `model.gguf` are stored as."""
    offset: int
    """Where they begin there, in bytes."""


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """What the engine has to know of a model."""

    model: str
    """Its name; a memory's file belongs to it."""
    side: int
    """Pixels of an image's side."""
    fit: Fit
    """What of a long image the model sees."""
    describe: str
    """What it is asked for a caption."""
    begin: int
    """Token id before every prompt."""
    end: int
    """Token id that ends an answer."""
    memory: EdgeMemory | None = None
    longest: int = 64
    """Tokens of an answer, at most."""
    context: int = 512
    """Positions of prefix, prompt and answer, at most; the decoder was trained for no fewer."""
    threads: int = 2
    """Cores that compute."""


def write_engine(folder: Path, settings: EdgeSettings) -> None:
    """Write the engine and its `config.json` into the folder of a model."""
    fields = {name: value for name, value in asdict(settings).items() if value is not None}
    write_atomic(folder / "config.json", json.dumps({"format": FORMAT, **fields}, indent=1) + "\n")
    for name in TEXTS:
        write_atomic(folder / name, _moved((ENGINE / name).read_text()))
    for name in PACKAGE:
        write_atomic(folder / "edge" / name, _moved((ENGINE / name).read_text()))


def _moved(text: str) -> str:
    """Let imports find the package `edge` where it then lies."""
    return text.replace("from tasks.edge.", "from edge.")


def write_edge_memory(path: Path, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Write `prior_mean` (K, C), `prior_variance` (K,), `when` (T, C): matrices as int8 with a scale for each row."""
    kept: dict[str, NDArray[np.generic]] = {}
    for name, values in tensors.items():
        if values.ndim < 2:
            kept[name] = values.astype(np.float32)
            continue
        scales = np.maximum(np.abs(values).max(1, keepdims=True) / 127, 1e-12).astype(np.float32)
        kept[name] = np.rint(values / scales).astype(np.int8)
        kept[f"{name}_scales"] = scales
    write_atomic(path, save(kept))
