"""A model's folder for a small board: the engine's own files beside those of the model.

`model.gguf` (`gguf_file.py`), `vision.onnx` (`onnx_file.py`), `tokenizer.json`, `config.json`, `memory.safetensors`,
and the engine: `run.py`, its package `edge/`, `requirements.txt` and `README.md`. Nothing in there imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from storage.files import write_atomic

ENGINE = Path(__file__).parent.parent / "edge"
TEXTS = ("run.py", "requirements.txt", "README.md")
PACKAGE = ("__init__.py", "engine.py", "language.py", "memory.py", "picture.py", "vision.py")
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids around what the decoder is given."""

    begin: tuple[int, ...]
    """Before the vectors of memory and image, which begin a conversation."""
    caption: tuple[int, ...]
    """After them where the image is to be described."""
    before: tuple[int, ...]
    """Before a question."""
    after: tuple[int, ...]
    """After a question; an answer follows."""


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """What the engine has to know of a model."""

    side: int
    """Pixels of an image's side."""
    prompt: Prompt
    end: tuple[int, ...]
    """Token ids that end an answer."""
    longest: int = 64
    """Tokens of an answer, at most."""
    context: int = 512
    """Positions of a conversation, at most."""
    threads: int = 2
    """Cores that compute."""
    noise: float | None = None
    """Of the episodic memory, in `memory.safetensors`; absent, the model has none."""


def write_engine(folder: Path, settings: EdgeSettings) -> None:
    """Write the engine and its `config.json` into the folder of a model."""
    fields = asdict(settings)
    noise = fields.pop("noise")
    memory = {} if noise is None else {"memory": {"noise": noise}}
    write_atomic(folder / "config.json", json.dumps({"format": FORMAT, **fields, **memory}, indent=1) + "\n")
    for name in TEXTS:
        write_atomic(folder / name, _moved((ENGINE / name).read_text()))
    for name in PACKAGE:
        write_atomic(folder / "edge" / name, _moved((ENGINE / name).read_text()))


def _moved(text: str) -> str:
    """Let imports find the package `edge` where it then lies."""
    return text.replace("from tasks.edge.", "from edge.")


def write_edge_memory(path: Path, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Write an episodic memory's tensors as the engine reads them, matrices as int8 with a scale for each row.

    `prior_mean` (K, C), `prior_variance` (K,), ScopeNet's weights below `scope.`, and `vectors.weight` (V * H, C) and
    `vectors.bias` (V * H,) of the layer that turns a reading into V vectors of the decoder's H channels.
    """
    kept: dict[str, NDArray[np.generic]] = {}
    for name, values in tensors.items():
        if values.ndim < 2:
            kept[name] = values.astype(np.float32)
            continue
        scales = np.maximum(np.abs(values).max(1, keepdims=True) / 127, 1e-12).astype(np.float32)
        kept[name] = np.rint(values / scales).astype(np.int8)
        kept[f"{name}_scales"] = scales
    write_atomic(path, save(kept))
