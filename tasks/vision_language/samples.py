"""Images with texts as samples of episodes, tokenised, and as batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.microvlm import Phrases
from configs.vision_language import Square
from models.vision_language.batch import Texts, VlmBatch
from storage.image_text_dataset import ImageTextDataset
from storage.sampling import sample_seed
from storage.shard_index import first_of_each_image
from tasks.text.tokens import Tokens, padded

if TYPE_CHECKING:
    from tasks.vision_language.released import VlmRelease

COMPARED = 8
"""Images on which one form of a model is compared with another."""


@dataclass(frozen=True)
class Asking:
    """Prompts and questions as token ids, and how a batch is cut into episodes."""

    tokens: Tokens
    phrases: Phrases
    episode: int
    longest: int
    steps: int
    """Images that a memory tells apart by when they were seen."""

    def prompt(self, question: str) -> str:
        """Return what stands before a text: its own question, or the prompt of captions."""
        return question or self.phrases.describe

    def recall(self, step: int, seed: int) -> str:
        """Return a question about the image that was seen at a step, counted from 0."""
        return self.phrases.recall[seed % len(self.phrases.recall)].format(number=step + 1)

    def encode(self, prompt: str, text: str) -> tuple[list[int], int]:
        """Return begin, prompt, text and end, and how many of them come before the text. A prompt longer than texts
        may be loses its beginning.
        """
        ids, head = self.tokens.encode(prompt, text, self.longest)
        cut = max(0, head - 1 - self.longest)
        return ids[:1] + ids[1 + cut :], head - cut


@dataclass(frozen=True)
class VlmSample:
    """One text with its image."""

    image: Tensor
    """(3, side, side) uint8"""
    question: str
    text: str
    seed: int
    """Of what is asked about the image's episode, if it is the first of one."""
    row: int
    """Of the input list."""
    asking: Asking


class VlmSamples:
    """The texts of one split with their images; `VlmBatch` comes of lists of them by `collate`."""

    def __init__(self, shards: Path, index: Path, split: str, square: Square, asking: Asking) -> None:
        self.split = split
        self.images = ImageTextDataset(shards, index, split, **square._asdict())
        self._asking = asking

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, index: int, seed: int) -> VlmSample:
        """Return a text with its image."""
        found = self.images[index]
        return VlmSample(found["image"], found["question"], text_of(found), seed, found["row"], self._asking)

    def first_texts(self) -> NDArray[np.int64]:
        """Return the places of the first texts of all images."""
        return first_of_each_image(self.images.index.entries)

    @property
    def episode(self) -> int:
        """Images of an episode."""
        return self._asking.episode


class Chosen:
    """The first texts of some images, evenly spaced: no two of them are of one image."""

    def __init__(self, source: VlmSamples, most: int) -> None:
        self._source = source
        images = source.first_texts()
        count = min(len(images), most)
        self.chosen: list[int] = images[np.arange(count) * len(images) // max(count, 1)].tolist()

    def __len__(self) -> int:
        return len(self.chosen)

    def sample(self, index: int, seed: int) -> VlmSample:
        """Return a sample of the source."""
        return self._source.sample(self.chosen[index], seed)


class EpisodePairs:
    """Whole episodes of images that are all different, for evaluations; in pairs, so that each has another beside it
    for a control.
    """

    def __init__(self, source: VlmSamples, most: int) -> None:
        """Choose at most so many samples; `ValueError` where they do not fill one pair."""
        self._samples, self._size = Chosen(source, most), 2 * source.episode
        if not len(self):
            raise ValueError(
                f"the {source.split} split has {len(self._samples)} images, too few for two episodes of "
                f"{source.episode}; raise its share in splits, or give more images"
            )

    def __len__(self) -> int:
        return len(self._samples) // self._size

    def sample(self, index: int, seed: int) -> list[VlmSample]:
        """Return the samples of two episodes; what is asked about them comes from the seed."""
        places = range(index * self._size, (index + 1) * self._size)
        return [self._samples.sample(place, sample_seed(seed, 0, place)) for place in places]


def collate_pairs(pairs: Sequence[Sequence[VlmSample]]) -> VlmBatch:
    """Make a batch of pairs of episodes."""
    return collate([sample for pair in pairs for sample in pair])


def first_of_validation(release: VlmRelease, shards: Path, index: Path) -> VlmBatch:
    """Return a few samples of the validation split, on which one form of a model is compared with another."""
    network, prompt = release.network, release.tokens.ids(release.design.phrases.describe)
    room = network.language.positions - network.adapter.tokens - network.recall.vectors - len(prompt) - 2
    asking = Asking(release.tokens, release.design.phrases, episode=2, longest=min(64, room), steps=2)
    samples = VlmSamples(shards, index, "validation", network.vision.square, asking)
    return collate([samples.sample(k % len(samples), k) for k in range(COMPARED)])


def text_of(found: dict[str, Any]) -> str:
    """Return what is said of an image: the answer to its question, or its caption."""
    return found["answer"] if found["question"] else found["caption"]


def collate(samples: Sequence[VlmSample]) -> VlmBatch:
    """Make episodes of samples in their order; what does not fill one is left out."""
    asking = samples[0].asking
    steps = asking.episode
    count = len(samples) // steps
    samples = samples[: count * steps]
    written = torch.zeros(count, steps, dtype=torch.bool)
    recalled, questions, beyond, direct, first, asked, shown = [], [], [], [], [], [], []
    for number in range(count):
        random = np.random.default_rng(samples[number * steps].seed)
        before, seen = int(random.integers(asking.steps - steps + 1)), int(random.integers(1, steps + 1))
        step = int(random.integers(seen))
        written[number, :seen] = True
        latest_shown = bool(random.integers(2)) and step < seen - 1
        question = asking.recall(before + step, int(random.integers(1 << 16)))
        if step == seen - (2 if latest_shown else 1) and random.integers(2):
            question = asking.phrases.previous
        recalled.append(asking.encode(question, samples[number * steps + step].text))
        questions.append((question, ""))
        unseen = before + seen + int(random.integers(steps))
        beyond.append((asking.recall(unseen, int(random.integers(1 << 16))), ""))
        direct.append((asking.phrases.direct[random.integers(len(asking.phrases.direct))], ""))
        first.append(before)
        asked.append(before + step)
        shown.append(latest_shown)
    return VlmBatch(
        images=torch.stack([sample.image for sample in samples]),
        told=_texts([asking.encode(asking.prompt(s.question), s.text) for s in samples]),
        prompts=_texts([asking.encode(asking.prompt(s.question), "") for s in samples]),
        captions=_texts([(asking.tokens.ids(s.text)[: asking.longest], 0) for s in samples]),
        first=torch.tensor(first),
        written=written,
        recalled=_texts(recalled),
        questions=_texts([asking.encode(*pair) for pair in [*questions, *beyond, *direct]]),
        asked=torch.tensor(asked),
        shown=torch.tensor(shown),
    )


def _texts(encoded: Sequence[tuple[Sequence[int], int]]) -> Texts:
    tokens, attended = padded([ids for ids, _ in encoded])
    heads = torch.tensor([head for _, head in encoded])
    learned = attended & (torch.arange(tokens.shape[1]) >= heads[:, None])
    return Texts(tokens, attended, learned)


def count_terms(batch: VlmBatch) -> dict[str, float]:
    """Return what each term of the loss is the mean over."""
    images, episodes = float(len(batch.images)), float(batch.episodes)
    queries = images + 3 * episodes
    return {
        "nll": float(batch.told.learned.sum()),
        "recall": float(batch.recalled.learned.sum()),
        "alignment": images,
        "fine": images,
        "scope": queries,
        "cue": episodes,
        "memory_kl": episodes,
        "address_kl": queries,
        "distil": float(batch.told.learned.sum() + batch.recalled.learned.sum()),
        "relations": float(batch.told.attended.sum() + batch.recalled.attended.sum()),
    }
