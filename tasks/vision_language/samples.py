"""Images with texts as samples of episodes, tokenised, and as batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.microvlm import Phrases
from models.vision_language.batch import Texts, VlmBatch
from storage.image_text_dataset import ImageTextDataset
from tasks.text.tokens import Tokens, padded


@dataclass(frozen=True)
class Asking:
    """Prompts and questions as token ids, and how a batch is cut into episodes."""

    tokens: Tokens
    phrases: Phrases
    episode: int
    longest: int

    def prompt(self, question: str) -> str:
        """Return what stands before a text: its own question, or the prompt of captions."""
        return question or self.phrases.describe

    def recall(self, step: int, seed: int) -> str:
        """Return a question about the image that was seen at a step, counted from 0."""
        return self.phrases.recall[seed % len(self.phrases.recall)].format(number=step + 1)

    def encode(self, prompt: str, text: str) -> tuple[list[int], int]:
        """Return begin, prompt, text and end, and how many of them come before the text."""
        return self.tokens.encode(prompt, text, self.longest)


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

    def __init__(self, shards: Path, index: Path, split: str, side: int, asking: Asking) -> None:
        self.split = split
        self.images = ImageTextDataset(shards, index, split, side=side)
        self._asking = asking

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, index: int, seed: int) -> VlmSample:
        """Return a text with its image."""
        found = self.images[index]
        return VlmSample(found["image"], found["question"], text_of(found), seed, found["row"], self._asking)

    @property
    def episode(self) -> int:
        """Images of an episode."""
        return self._asking.episode

    def cut(self, most: int = 2000) -> int:
        """Return how many of up to `most` texts are longer than the longest that is used."""
        tokens, longest = self._asking.tokens, self._asking.longest
        chosen = range(0, len(self), max(1, len(self) // most))
        return sum(len(tokens.ids(f" {text_of(self.images[k])}")) + 1 > longest for k in chosen)


class Chosen:
    """Some samples of a source, evenly spaced."""

    def __init__(self, source: VlmSamples, most: int) -> None:
        self._source = source
        count = min(len(source), most)
        self.chosen = (np.arange(count) * len(source) // max(count, 1)).tolist()

    def __len__(self) -> int:
        return len(self.chosen)

    def sample(self, index: int, seed: int) -> VlmSample:
        """Return a sample of the source."""
        return self._source.sample(self.chosen[index], seed)


class Episodes:
    """Whole episodes of evenly spaced samples, for evaluations."""

    def __init__(self, source: VlmSamples, most: int) -> None:
        """Choose at most so many samples; `ValueError` where they do not fill one episode."""
        self._samples, self._steps = Chosen(source, most), source.episode
        if not len(self):
            raise ValueError(
                f"the {source.split} split has {len(source)} texts, too few for an episode of {self._steps}; raise its "
                "share in splits, or give more images"
            )

    def __len__(self) -> int:
        return len(self._samples) // self._steps

    def sample(self, index: int, seed: int) -> list[VlmSample]:
        """Return the samples of an episode; the seed says what is asked about it."""
        places = range(index * self._steps, (index + 1) * self._steps)
        return [self._samples.sample(place, seed) for place in places]


def collate_episodes(episodes: Sequence[Sequence[VlmSample]]) -> VlmBatch:
    """Make a batch of whole episodes."""
    return collate([sample for episode in episodes for sample in episode])


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
    recalled, questions, beyond, asked, shown = [], [], [], [], []
    for number in range(count):
        random = np.random.default_rng(samples[number * steps].seed)
        seen = int(random.integers(2, steps + 1))
        step = int(random.integers(seen))
        written[number, :seen] = True
        latest_shown = bool(random.integers(2)) and step < seen - 1
        question = asking.recall(step, int(random.integers(1 << 16)))
        if step == seen - (2 if latest_shown else 1) and random.integers(2):
            question = asking.phrases.previous
        recalled.append(asking.encode(question, samples[number * steps + step].text))
        questions.append((question, ""))
        beyond.append((asking.recall(seen + int(random.integers(steps)), int(random.integers(1 << 16))), ""))
        asked.append(step)
        shown.append(latest_shown)
    return VlmBatch(
        images=torch.stack([sample.image for sample in samples]),
        told=_texts([asking.encode(asking.prompt(s.question), s.text) for s in samples]),
        prompts=_texts([asking.encode(asking.prompt(s.question), "") for s in samples]),
        captions=_texts([(asking.tokens.ids(s.text)[: asking.longest], 0) for s in samples]),
        written=written,
        recalled=_texts(recalled),
        questions=_texts([asking.encode(*pair) for pair in [*questions, *beyond]]),
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
    queries = images + 2 * episodes
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
    }
