"""A decoder in a GGUF file, run by llama.cpp: token ids or vectors go in, logits come out."""

from __future__ import annotations

import ctypes
import importlib
import sys
import weakref
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH = 32
"""Positions that are computed at once; more are quicker and need more memory."""


def _bindings() -> Any:
    """Return llama.cpp's functions without what their package imports beside them: 10 MB, templates of chats above all.

    `ImportError` where they are not installed.
    """
    if "llama_cpp" not in sys.modules and (spec := find_spec("llama_cpp")):
        package = ModuleType("llama_cpp")
        package.__path__ = list(spec.submodule_search_locations or ())
        sys.modules["llama_cpp"] = package
    return importlib.import_module("llama_cpp.llama_cpp")


llama_cpp = _bindings()


@llama_cpp.llama_log_callback
def _say_nothing(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    """Take the messages of llama.cpp; what goes wrong is told by what its functions return."""


class Language:
    """A decoder, and the sequence that it has read so far.

    Weights are mapped from disk, in the file's own layout. llama.cpp can also repack some types as it opens a file;
    they are then a little quicker, and twice in memory.
    """

    def __init__(self, path: Path, context: int = 512, threads: int = 2, *, repack: bool = False) -> None:
        """Open a file.

        Args:
            path: the GGUF file.
            context: the longest sequence.
            threads: how many cores compute.
            repack: let llama.cpp repack.

        Raises:
            ValueError: the file is not there, or llama.cpp cannot read it.
        """
        if not path.is_file():
            raise ValueError(f"there is no decoder at {path}; copy the whole folder that was exported")
        llama_cpp.llama_log_set(_say_nothing, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        settings = llama_cpp.llama_model_default_params()
        settings.use_mmap, settings.use_extra_bufts, settings.n_gpu_layers = True, repack, 0
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), settings)
        if not self._model:
            raise ValueError(f"llama.cpp cannot read {path}; it is damaged, or of a newer kind: export the model again")
        weakref.finalize(self, llama_cpp.llama_model_free, self._model)
        self._context = llama_cpp.llama_init_from_model(self._model, _context_settings(context, threads))
        if not self._context:
            raise ValueError(f"there is no memory for a context of {context} positions; lower it in config.json")
        weakref.finalize(self, llama_cpp.llama_free, self._context)
        self.context = context
        self.width: int = llama_cpp.llama_model_n_embd(self._model)
        """Channels of the vectors that it reads; shorter ones are continued by zeros."""
        self.vocabulary: int = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self.position = 0
        """How much was read."""

    def read_tokens(self, ids: Sequence[int]) -> None:
        """Go on with token ids."""
        if wrong := [token for token in ids if not 0 <= token < self.vocabulary]:
            raise ValueError(f"token {wrong[0]} is none of the decoder's {self.vocabulary}; take its own tokenizer")
        tokens = np.asarray(ids, np.int32)
        for begin in range(0, len(tokens), BATCH):
            self._decode(tokens[begin : begin + BATCH], None)

    def read_vectors(self, vectors: NDArray[np.float32]) -> None:
        """Go on with vectors (N, C) in place of the embeddings of tokens."""
        if vectors.shape[1] > self.width:
            raise ValueError(f"vectors of {vectors.shape[1]} channels do not fit a decoder of {self.width}")
        wide = np.zeros((len(vectors), self.width), np.float32)
        wide[:, : vectors.shape[1]] = vectors
        for begin in range(0, len(wide), BATCH):
            self._decode(None, wide[begin : begin + BATCH])

    def logits(self) -> NDArray[np.float32]:
        """Return what is to follow the last that was read, (vocabulary,)."""
        found = llama_cpp.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(found, (self.vocabulary,)).copy()

    def clear(self) -> None:
        """Begin a new sequence."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        self.position = 0

    def _decode(self, tokens: NDArray[np.int32] | None, vectors: NDArray[np.float32] | None) -> None:
        """Read a batch; the logits after its last position are kept."""
        count = len(tokens if tokens is not None else vectors)  # type: ignore[arg-type]
        if self.position + count > self.context:
            raise ValueError(f"the sequence is longer than the context of {self.context}; clear it, or ask for less")
        batch = llama_cpp.llama_batch_init(count, self.width if tokens is None else 0, 1)
        try:
            _fill(batch, count, self.position, tokens, vectors)
            code = llama_cpp.llama_decode(self._context, batch)
        finally:
            llama_cpp.llama_batch_free(batch)
        if code:
            raise RuntimeError(f"llama.cpp could not compute {count} positions at {self.position}: code {code}")
        self.position += count


def _context_settings(context: int, threads: int) -> Any:
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_outputs_max = context, BATCH, BATCH, 1
    settings.n_threads = settings.n_threads_batch = threads
    settings.no_perf = True
    return settings


def _fill(
    batch: Any, count: int, position: int, tokens: NDArray[np.int32] | None, vectors: NDArray[np.float32] | None
) -> None:
    batch.n_tokens = count
    if tokens is not None:
        ctypes.memmove(batch.token, tokens.ctypes.data, tokens.nbytes)
    elif vectors is not None:
        ctypes.memmove(batch.embd, vectors.ctypes.data, vectors.nbytes)
    for index in range(count):
        batch.pos[index], batch.n_seq_id[index], batch.seq_id[index][0] = position + index, 1, 0
        batch.logits[index] = index == count - 1
