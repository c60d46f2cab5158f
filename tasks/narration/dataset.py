"""Pairs of windows and captions as samples, alone or with a window of another date as a control."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from configs.weather_lm import JoinConfig, LanguageRecipe
from models.weather.narrator import NarrationBatch
from storage.window_dataset import WindowDataset
from tasks.captions.placed import load_placed
from tasks.narration.documents import prompt_for
from tasks.narration.pairs import Pair, Pairs, Windows, join
from tasks.text.tokens import Tokens, padded

FIELDS = ("data", "time", "latitude", "longitude")


@dataclass(frozen=True)
class NarrationSample:
    """A window's tensors, and token ids of which the first `head` are no part of the caption."""

    window: dict[str, torch.Tensor]
    ids: list[int]
    head: int
    index: int


def collate(samples: Sequence[NarrationSample]) -> NarrationBatch:
    """Stack windows and pad texts."""
    tokens, attended = padded([sample.ids for sample in samples])
    heads = torch.tensor([sample.head for sample in samples])
    return NarrationBatch(
        **{name: torch.stack([sample.window[name] for sample in samples]) for name in FIELDS},
        tokens=tokens,
        attended=attended,
        learned=attended & (torch.arange(tokens.shape[1]) >= heads[:, None]),
        sample=torch.tensor([sample.index for sample in samples]),
    )


class NarrationPairs:
    """The pairs of one split; of several captions of a pair one is drawn."""

    def __init__(self, windows: WindowDataset, pairs: Pairs, tokens: Tokens, prompt: str, longest: int) -> None:
        self.windows, self.pairs = windows, pairs.pairs
        self._tokens, self._prompt, self._longest = tokens, prompt, longest

    def __len__(self) -> int:
        return len(self.pairs)

    def sample(self, index: int, seed: int) -> NarrationSample:
        """Return the window of a pair with one of its captions, drawn by the seed."""
        texts = self.pairs[index].texts
        return self.told(index, texts[seed % len(texts)])

    def told(self, index: int, text: str, window: int | None = None) -> NarrationSample:
        """Return a pair's prompt and a text, with the pair's own window or another one."""
        pair = self.pairs[index]
        prompt = prompt_for(self._prompt, pair.region, pair.date)
        ids, head = self._tokens.encode(prompt, text, self._longest)
        return NarrationSample(self.windows[pair.window if window is None else window], ids, head, index)

    def head(self, index: int) -> int:
        """Return the number of tokens before a pair's caption."""
        pair = self.pairs[index]
        return self._tokens.encode(prompt_for(self._prompt, pair.region, pair.date), "")[1]

    def cut(self) -> int:
        """Return how many captions are longer than the longest that is used."""
        return sum(
            len(self._tokens.ids(f" {text}")) + 1 > self._longest for text in {t for p in self.pairs for t in p.texts}
        )


class ControlledPairs:
    """Some pairs of a split, evenly spaced, each with the window of another date beside its own."""

    def __init__(self, pairs: NarrationPairs, most: int, seed: int) -> None:
        self._pairs = pairs
        count = min(len(pairs), most)
        self.chosen = (np.arange(count) * len(pairs) // max(count, 1)).tolist()
        self.others = partners(pairs.pairs, seed)

    def __len__(self) -> int:
        return len(self.chosen)

    def sample(self, index: int, seed: int) -> tuple[NarrationSample, NarrationSample]:
        """Return a pair with its own window, and the same text with the other window."""
        index = self.chosen[index]
        pair = self._pairs.pairs[index]
        text = pair.texts[0]
        other = self._pairs.pairs[self.others[index]].window
        return self._pairs.told(index, text), self._pairs.told(index, text, other)


def collate_controlled(samples: Sequence[tuple[NarrationSample, NarrationSample]]) -> tuple[NarrationBatch, ...]:
    """Return the batch with the pairs' own windows, and the one with the others'."""
    own, other = zip(*samples, strict=True)
    return collate(own), collate(other)


def partners(pairs: Sequence[Pair], seed: int) -> list[int]:
    """Return for each pair one of another date, of the same region where there is any: what sets them apart is weather.

    Raises:
        ValueError: all pairs are of one date.
    """
    if len({pair.date for pair in pairs}) < 2:
        raise ValueError(
            "all windows with captions are of one date, so none can be judged against another date; add captions"
        )
    random = np.random.default_rng(seed)
    by_region: dict[str | None, list[int]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        by_region[pair.region].append(index)
    found = []
    for pair in pairs:
        candidates = [k for k in by_region[pair.region] if pairs[k].date != pair.date]
        candidates = candidates or [k for k, other in enumerate(pairs) if other.date != pair.date]
        found.append(candidates[random.integers(len(candidates))])
    return found


@dataclass(frozen=True)
class PairFolders:
    """Where windows and captions lie."""

    store: Path
    training_set: Path
    captions: Path

    def windows(self, split: str) -> WindowDataset:
        """Return the windows of a split."""
        return WindowDataset(self.store, self.training_set, split)

    def pairs(self, split: str, config: JoinConfig) -> tuple[WindowDataset, Pairs]:
        """Return the windows of a split, and which of them are told about."""
        windows = self.windows(split)
        found = join(Windows(windows.store, windows.training_set), load_placed(self.captions), config, split)
        return windows, found

    def samples(
        self, split: str, config: JoinConfig, tokens: Tokens, language: LanguageRecipe, longest: int
    ) -> NarrationPairs:
        """Return the pairs of a split as samples."""
        windows, found = self.pairs(split, config)
        return NarrationPairs(windows, found, tokens, language.prompt, longest)
