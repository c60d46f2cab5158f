"""Captions, questions and conversations about images on a small CPU."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from tasks.edge.drawing import choose
from tasks.edge.language import Language
from tasks.edge.memory import EpisodicMemory
from tasks.edge.onnx import Floats, OnnxFile
from tasks.edge.picture import read_picture
from tasks.edge.rows import EmbeddingRows

FORMAT = 3
CUT = "�"
"""What stands for the beginning of a character whose end is in the next token."""


class EdgeEngine:
    """A vision-language model in a folder, and a conversation with it."""

    def __init__(self, folder: Path) -> None:
        """Open an exported model.

        Args:
            folder: with `config.json`, `model.gguf`, `vision.onnx`, `tokenizer.json` and, where the model has an
                episodic memory, `memory.safetensors`, `question.onnx` and `answer.onnx`.

        Raises:
            ValueError: a file is missing, damaged or of another format.
        """
        self._folder, self._config = folder, _read_config(folder / "config.json")
        self._vision = OnnxFile(folder / "vision.onnx", self._config["threads"])
        self._tokenizer = _read_tokenizer(folder / "tokenizer.json")
        self._recall = _Recall(folder, self._config) if "memory" in self._config else None
        self._prefix: Floats | None = None
        self._opened: Language | None = None

    @property
    def memory(self) -> EpisodicMemory | None:
        """The episodic memory, where the model has one."""
        return self._recall.memory if self._recall else None

    @property
    def language(self) -> Language:
        """The decoder; opened when it is first asked for, after vision has given its memory back."""
        if self._opened is None:
            config = self._config
            self._opened = Language(self._folder / "model.gguf", config["context"], config["threads"])
        return self._opened

    def caption(self, image: Path | Image.Image, prompt: str = "", **choices: Any) -> str:
        """Return what follows a prompt about an image, which is not remembered; `choices` as `stream` takes them."""
        prefix, _ = self._look(image)
        return "".join(self._write([prefix], self._ids(prompt), **choices)).strip()

    def show(self, image: Path | Image.Image) -> None:
        """Look at an image and remember it; questions are about it until the next one."""
        self._prefix, content = self._look(image)
        if self._recall:
            self._recall.memory.write(content)

    def ask(self, question: str = "", **choices: Any) -> str:
        """Return the answer to a question; arguments as `stream` takes them."""
        return "".join(self.stream(question, **choices)).strip()

    def stream(
        self, question: str = "", *, longest: int | None = None, temperature: float = 0.0, seed: int = 0
    ) -> Iterator[str]:
        """Yield the pieces of the answer to a question about the image that is shown, or about those before.

        Args:
            question: the image is described where it is empty.
            longest: how many tokens the answer has at most.
            temperature: 0 takes the likeliest token; above, tokens are drawn, the bolder the higher.
            seed: of what is drawn.

        Raises:
            ValueError: nothing was shown yet, and nothing is remembered.
        """
        ids = self._ids(question)
        remembers = self._recall is not None and self._recall.memory.seen > 0
        if self._prefix is None and not remembers:
            raise ValueError("there is nothing to speak of yet; show an image first")
        shown = [] if self._prefix is None else [self._prefix]
        told = self._recall.tell(ids, self.language, looking=bool(shown)) if self._recall and remembers else []
        yield from self._write([*told, *shown], ids, longest=longest, temperature=temperature, seed=seed)

    def save_memory(self, path: Path) -> None:
        """Keep what is remembered in a file."""
        if self._recall:
            self._recall.memory.save(path, self._config["model"])

    def load_memory(self, path: Path) -> None:
        """Take up what `save_memory` kept, here or in torch; `ValueError` where it is another model's."""
        if self._recall:
            self._recall.memory.load(path, self._config["model"])

    def _look(self, image: Path | Image.Image) -> tuple[Floats, Floats]:
        """Return an image's prefix (K, C), and what of it is remembered (C,)."""
        prefix, content = self._vision(read_picture(image, self._config["side"], self._config["fit"]))
        return prefix, content

    def _ids(self, question: str) -> list[int]:
        """Return the token ids of a prompt."""
        text = question or self._config["describe"]
        return [self._config["begin"], *self._tokenizer.encode(text, add_special_tokens=False).ids]

    def _write(
        self,
        vectors: Sequence[Floats],
        ids: Sequence[int],
        *,
        longest: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[str]:
        """Yield the pieces of what follows vectors and a prompt."""
        self.language.clear()
        for part in vectors:
            self.language.read_vectors(part)
        self.language.read_tokens(ids)
        room = self.language.context - self.language.position
        longest = min(longest or self._config["longest"], room + 1)
        yield from self._pieces(self._answer(longest, temperature, np.random.default_rng(seed)))

    def _answer(self, longest: int, temperature: float, random: np.random.Generator) -> Iterator[int]:
        """Yield token ids until the end is said."""
        while longest > 0 and (token := choose(self.language.logits(), temperature, random)) != self._config["end"]:
            yield token
            longest -= 1
            if longest:
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


class _Recall:
    """The memory, and what is computed around it."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self._config, self._folder = config, folder
        try:
            tensors = load_file(folder / "memory.safetensors")
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{folder} has no memory: {error}; copy the whole folder that was exported") from error
        self.memory = EpisodicMemory(tensors, config["memory"]["noise"])
        self._question, self._answer = OnnxFile(folder / "question.onnx", 1), OnnxFile(folder / "answer.onnx", 1)

    def tell(self, ids: Sequence[int], language: Language, *, looking: bool) -> list[Floats]:
        """Return the tokens (V, C) that tell the decoder what a question recalls; none where it is not about that.

        Where one is `looking` at an image, it is the last that was seen.
        """
        settings = self._config["memory"]
        asked = [*ids, *settings["after"]][: settings["longest"]]
        rows = EmbeddingRows(
            self._folder / "model.gguf", settings["rows"], settings["offset"], language.vocabulary, language.width
        )
        embeddings = np.zeros((settings["longest"], self.memory.mean.shape[1]), np.float32)
        embeddings[: len(asked)] = rows(asked)[:, : embeddings.shape[1]]
        attended = np.arange(len(embeddings)) < len(asked)
        (query,) = self._question(embeddings, attended, np.array(self.memory.seen - looking))
        tokens, scope = self._answer(query, self.memory.complete(query).astype(np.float32))
        return [tokens] if scope > 0 else []


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
