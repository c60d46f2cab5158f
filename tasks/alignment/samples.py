"""Images with what is said of them, tokenised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.vision_language import Square
from storage.hashing import digest
from storage.image_text_dataset import ImageTextDataset
from storage.image_texts import Text, read_texts
from storage.shard_index import first_of_each_image
from tasks.text.tokens import padded


@dataclass(frozen=True)
class AlignedSample:
    """An image and texts about it."""

    image: Tensor
    """(3, side, side) uint8"""
    ids: list[list[int]]
    same: list[int]
    """A number of each text, equal for equal ones."""


@dataclass(frozen=True)
class AlignedBatch:
    """Images with texts, T in all."""

    images: Tensor
    """(B, 3, side, side) uint8"""
    tokens: Tensor
    """(T, L) int64, image by image."""
    attended: Tensor
    """(T, L) bool: a token, no padding."""
    same: Tensor
    """(T,) int64, equal for equal texts."""
    of_image: Tensor
    """(T,) int64, the image that a text is about."""


class TextIds:
    """A tokenizer that cuts texts; the marks that it sets are its own.

    One that is written in Rust is called without its wrapper, which takes longer than it does.
    """

    def __init__(self, source: str | Path, longest: int) -> None:
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(str(source))
        self._longest = longest
        self._rust: Any = getattr(self.tokenizer, "backend_tokenizer", None)
        if self._rust is not None:
            self._rust.enable_truncation(longest)
            self._rust.no_padding()

    def __call__(self, text: str) -> list[int]:
        """Return the token ids of a text."""
        if self._rust is not None:
            ids: list[int] = self._rust.encode(text).ids
        else:
            ids = self.tokenizer.encode(text, truncation=True, max_length=self._longest)
        return ids or [0]

    def __len__(self) -> int:
        return len(self.tokenizer)


def told(text: Text) -> str:
    """Return a caption, or a question with its answer."""
    question, said = text
    return f"{question} {said}." if question else said


class AlignedImages:
    """The images of a split, each once, with what is said of them.

    Args:
        shards: asset of image-text shards.
        index: of these shards.
        split: its name.
        square: how images are seen.
        ids: the tokenizer.
        texts: how many texts about an image are drawn for a sample, again where there are fewer; all by default.
        most: images, evenly spaced; all by default.
    """

    def __init__(
        self,
        shards: Path,
        index: Path,
        split: str,
        square: Square,
        ids: TextIds,
        *,
        texts: int | None = None,
        most: int | None = None,
    ) -> None:
        self._images = ImageTextDataset(shards, index, split, **square._asdict())
        said = read_texts(shards, index, split)
        first = first_of_each_image(self._images.index.entries)
        of_image: dict[tuple[int, int], list[Text]] = {}
        for entry, text in zip(self._images.index.entries, said, strict=True):
            of_image.setdefault((int(entry["shard"]), int(entry["jpg_offset"])), []).append(text)
        places = self._images.index.entries[first]
        self._texts = [of_image[int(place["shard"]), int(place["jpg_offset"])] for place in places]
        count = min(len(first), most or len(first))
        self._chosen = np.arange(count) * len(first) // max(count, 1)
        self._first, self._ids, self._drawn = first, ids, texts

    def __len__(self) -> int:
        return len(self._chosen)

    def sample(self, index: int, seed: int) -> AlignedSample:
        """Return an image with texts about it; where not all of them are wanted, the seed says which."""
        place = int(self._chosen[index])
        chosen = self._texts[place]
        if self._drawn:
            order = np.random.default_rng(seed).permutation(len(chosen))
            chosen = [chosen[k] for k in np.resize(order, self._drawn)]
        texts = [told(text) for text in chosen]
        image = self._images[int(self._first[place])]["image"]
        return AlignedSample(image, [self._ids(text) for text in texts], [_number(text) for text in texts])


def _number(text: str) -> int:
    return int(digest(text)[:15], 16)


def collate(samples: Sequence[AlignedSample]) -> AlignedBatch:
    """Stack images and pad texts."""
    tokens, attended = padded([ids for sample in samples for ids in sample.ids])
    same = torch.tensor([number for sample in samples for number in sample.same], dtype=torch.int64)
    of_image = torch.tensor([at for at, sample in enumerate(samples) for _ in sample.ids], dtype=torch.int64)
    return AlignedBatch(torch.stack([sample.image for sample in samples]), tokens, attended, same, of_image)
