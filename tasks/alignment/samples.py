"""Images with what is said of them, tokenised."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from storage.hashing import digest
from storage.image_text_dataset import ImageTextDataset
from storage.image_texts import Text, read_texts
from storage.shard_index import first_of_each_image
from tasks.text.tokens import padded


@dataclass(frozen=True)
class AlignedSample:
    """An image and one text about it."""

    image: Tensor
    """(3, side, side) uint8"""
    ids: list[int]
    same: int
    """Equal where all that is said of two images is equal."""


@dataclass(frozen=True)
class AlignedBatch:
    """Images with a text each."""

    images: Tensor
    """(B, 3, side, side) uint8"""
    tokens: Tensor
    """(B, L) int64"""
    attended: Tensor
    """(B, L) bool: a token, no padding."""
    same: Tensor
    """(B,) int64, equal for equal texts."""


class TextIds:
    """A tokenizer that cuts texts; the marks that it sets are its own."""

    def __init__(self, source: str | Path, longest: int) -> None:
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(str(source))
        self._longest = longest

    def __call__(self, text: str) -> list[int]:
        """Return the token ids of a text."""
        ids: list[int] = self.tokenizer.encode(text, truncation=True, max_length=self._longest)
        return ids or [0]

    def __len__(self) -> int:
        return len(self.tokenizer)


def told(texts: Sequence[Text], order: Iterable[int]) -> str:
    """Return what is said of an image: one of its captions, or its questions with their answers in some order."""
    chosen = [texts[k] for k in order]
    captions = [text for question, text in chosen if not question]
    return captions[0] if captions else " ".join(f"{question} {answer}." for question, answer in chosen)


class AlignedImages:
    """The images of a split, each once, with all that is said of them."""

    def __init__(self, shards: Path, index: Path, split: str, side: int, ids: TextIds, most: int | None = None) -> None:
        self._images = ImageTextDataset(shards, index, split, side=side)
        texts = read_texts(shards, index, split)
        first = first_of_each_image(self._images.index.entries)
        of_image: dict[tuple[int, int], list[Text]] = {}
        for entry, text in zip(self._images.index.entries, texts, strict=True):
            of_image.setdefault((int(entry["shard"]), int(entry["jpg_offset"])), []).append(text)
        places = self._images.index.entries[first]
        self._texts = [of_image[int(place["shard"]), int(place["jpg_offset"])] for place in places]
        count = min(len(first), most or len(first))
        self._chosen = np.arange(count) * len(first) // max(count, 1)
        self._first, self._ids, self._shuffled = first, ids, split == "train"

    def __len__(self) -> int:
        return len(self._chosen)

    def sample(self, index: int, seed: int) -> AlignedSample:
        """Return an image with a text about it; in training the seed says which, or in which order."""
        place = int(self._chosen[index])
        texts = self._texts[place]
        order = np.random.default_rng(seed).permutation(len(texts)) if self._shuffled else range(len(texts))
        same = int(digest(sorted(map(list, texts)))[:15], 16)
        image = self._images[int(self._first[place])]["image"]
        return AlignedSample(image, self._ids(told(texts, order)), same)


def collate(samples: Sequence[AlignedSample]) -> AlignedBatch:
    """Stack images and pad texts."""
    tokens, attended = padded([sample.ids for sample in samples])
    same = torch.tensor([sample.same for sample in samples], dtype=torch.int64)
    return AlignedBatch(torch.stack([sample.image for sample in samples]), tokens, attended, same)


def training_texts(shards: Path, index: Path) -> list[str]:
    """Return everything that is said of training images, for a tokenizer."""
    return [part for text in read_texts(shards, index, "train") for part in text if part]
