"""A conversation about images: what was seen is kept in the memory, from one question to the next and in a file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.vision_language.gaussian_memory import MemoryState
from storage.checkpoints import save_weights
from tasks.vision_language.describe import Writing, question_reading, write
from tasks.vision_language.released import VlmRelease

REMARK = "model"


class Conversation:
    """Images and questions in turn, with a model in evaluation mode. Every image that is shown is remembered."""

    def __init__(self, release: VlmRelease, writing: Writing | None = None) -> None:
        self._release, self._network = release, release.network
        self._writing = writing or Writing()
        self._state: MemoryState | None = None
        self.seen = 0
        self._prefix: Tensor | None = None

    @torch.no_grad()
    def show(self, image: Tensor) -> None:
        """Look at an image (3, side, side), uint8, and remember it; questions are about it until the next one."""
        seen = self._network.see(image[None])
        self._state = self._network.recall.write_next(seen.pooled[0], self._state, self.seen)
        self.seen += 1
        self._prefix = seen.prefix

    @property
    def number(self) -> int:
        """What questions call the last image: after as many as the memory tells apart, numbers begin again at 1."""
        return (self.seen - 1) % self._network.recall.steps + 1

    @torch.no_grad()
    def ask(self, question: str = "") -> str:
        """Return the answer to a question about the image that is shown, or about those before; a caption without one.

        Raises:
            ValueError: nothing was shown yet, and nothing is remembered.
        """
        if self._state is None:
            raise ValueError("there is nothing to speak of yet; show an image first")
        prompt = question or self._release.design.phrases.describe
        tokens = self._release.tokens
        shown = torch.tensor([self._prefix is not None])
        reading = question_reading(self._network, self._state, self.seen - shown.long(), tokens, [prompt])
        width = self._network.language.width
        prefix = self._prefix if self._prefix is not None else torch.zeros(1, self._network.adapter.tokens, width)
        return write(self._network, prefix, shown, reading, tokens, [prompt], self._writing)[0]

    def forget(self) -> None:
        """Begin anew."""
        self._state, self._prefix, self.seen = None, None, 0

    def save(self, path: Path, model: str) -> None:
        """Keep what is remembered in a file, for the same model; there is no file where nothing is."""
        if self._state is None:
            path.unlink(missing_ok=True)
        else:
            tensors = self._state.tensors() | {"seen": torch.tensor(self.seen)}
            save_weights(path, tensors, (REMARK, model))

    def load(self, path: Path, model: str) -> None:
        """Take up what `save` kept; no image is shown then.

        Raises:
            ValueError: the file is no memory, or that of another model.
        """
        try:
            with safe_open(path, "pt") as file:
                remark = (file.metadata() or {}).get(REMARK)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} cannot be read as a memory ({error}); delete it to begin anew") from None
        if remark != model or "seen" not in tensors:
            raise ValueError(f"{path} is the memory of {remark}, not of {model}; name that model, or another file")
        self._state = MemoryState.from_tensors(tensors)
        self.seen = int(tensors["seen"])
