"""Captions, questions and conversations about images on a small CPU."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from tasks.edge.language import Language
from tasks.edge.memory import EpisodicMemory
from tasks.edge.picture import read_picture
from tasks.edge.vision import Vision

FORMAT = 1
CUT = "�"
"""What stands for the beginning of a character whose end is in the next token."""


class EdgeEngine:
    """A vision-language model in a folder, and one conversation with it."""

    def __init__(self, folder: Path, memory: Path | None = None) -> None:
        """Open an exported model.

        Args:
            folder: with `config.json`, `model.gguf`, `vision.onnx`, `tokenizer.json` and, where the model has an
                episodic memory, `memory.safetensors`.
            memory: a file with what the memory held last; the memory begins empty when the file is not there.

        Raises:
            ValueError: a file is missing, damaged or of another model.
        """
        self._config = _read_config(folder / "config.json")
        threads = self._config["threads"]
        self._vision = Vision(folder / "vision.onnx", threads)
        self._tokenizer = _read_tokenizer(folder / "tokenizer.json")
        self._opening: list[NDArray[np.float32]] = []
        self.memory: EpisodicMemory | None = None
        if "memory" in self._config:
            self.memory = EpisodicMemory(load_file(folder / "memory.safetensors"), self._config["memory"]["noise"])
            if memory and memory.exists():
                self.memory.load(memory)
        self._language: Language | None = None
        self._files = folder

    @property
    def language(self) -> Language:
        """The decoder; opened when it is first asked for, after vision has given its memory back."""
        if self._language is None:
            path, context = self._files / "model.gguf", self._config["context"]
            self._language = Language(path, context, self._config["threads"])
        return self._language

    def caption(self, image: Path | Image.Image, **choices: Any) -> str:
        """Return the caption of an image; `choices` as `stream` takes them."""
        return "".join(self.stream(image, **choices)).strip()

    def stream(
        self,
        image: Path | Image.Image | None = None,
        question: str | None = None,
        *,
        longest: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[str]:
        """Yield the pieces of an answer.

        Args:
            image: what it is about, and what the conversation then begins with; absent, the conversation goes on.
            question: absent, the image is described.
            longest: how many tokens the answer has at most.
            temperature: 0 takes the likeliest token; above, tokens are drawn, the bolder the higher.
            seed: of what is drawn.
        """
        prompt = self._config["prompt"]
        longest = longest or self._config["longest"]
        if image is not None:
            self._opening = self._look(image)
            self._begin()
        elif not self._opening:
            raise ValueError("there is no image yet; name one first")
        ids = prompt["caption"] if question is None else [*prompt["before"], *self._ids(question), *prompt["after"]]
        if self.language.position + len(ids) + longest > self.language.context:
            self._begin()  # what was said before does not fit any more, the image still does
        self.language.read_tokens(ids)
        yield from self._pieces(self._answer(longest, temperature, np.random.default_rng(seed)))

    def _look(self, image: Path | Image.Image) -> list[NDArray[np.float32]]:
        """Return the vectors of what the image recalls, and of the image, which is then stored in memory."""
        seen = self._vision.see(read_picture(image, self._config["side"]))
        if self.memory is None:
            return [seen["prefix"]]
        code = seen["code"].astype(np.float64)
        recalled = self.memory.recall(code, seen["prefix"].shape[1])
        self.memory.write(code)
        return [recalled, seen["prefix"]]

    def _begin(self) -> None:
        self.language.clear()
        self.language.read_tokens(self._config["prompt"]["begin"])
        for vectors in self._opening:
            self.language.read_vectors(vectors)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _answer(self, longest: int, temperature: float, random: np.random.Generator) -> Iterator[int]:
        """Yield token ids until the end is said; each of them is read before the next is asked for."""
        for _ in range(longest):
            token = choose(self.language.logits(), temperature, random)
            if token in self._config["end"]:
                return
            yield token
            self.language.read_tokens([token])

    def _pieces(self, tokens: Iterator[int]) -> Iterator[str]:
        """Yield texts as soon as their characters are whole."""
        ids: list[int] = []
        said = ""
        for token in tokens:
            ids.append(token)
            text = self._text(ids)
            if not text.endswith(CUT):
                yield text[len(said) :]
                said = text
        if rest := self._text(ids)[len(said) :]:
            yield rest

    def _text(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text


def choose(logits: NDArray[np.float32], temperature: float, random: np.random.Generator) -> int:
    """Return the likeliest token, or one that is drawn where the temperature is above 0."""
    if temperature <= 0:
        return int(logits.argmax())
    noise = random.gumbel(size=len(logits))  # the largest of logits with Gumbel noise is a draw from their softmax
    return int((logits / temperature + noise).argmax())


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}; name a folder that `millrace export` made") from error
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {config.get('format')}, this engine reads {FORMAT}; export the model again"
        )
    return config


def _read_tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise ValueError(f"there is no tokenizer at {path}; copy the whole folder that was exported")
    return Tokenizer.from_file(str(path))
