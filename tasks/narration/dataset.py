"""Pairs of windows and captions as samples, alone or with the weather of another date as a control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from configs.weather_lm import JoinConfig, LanguageRecipe
from models.weather.narrator import NarrationBatch
from storage.training_set import ChannelStatistics
from storage.window_dataset import WindowDataset
from tasks.captions.placed import load_placed
from tasks.narration.documents import prompt_for
from tasks.narration.pairs import Pairs, Windows, join
from tasks.text.tokens import Tokens, padded

FIELDS = ("data", "time", "latitude", "longitude")
FORGOTTEN = np.timedelta64(5, "D")
"""How long the weather of a day shows in the days after it, roughly."""
SEASON, YEAR = np.timedelta64(45, "D"), np.timedelta64(365, "D")


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

    def told(self, index: int, text: str, weather: int | None = None) -> NarrationSample:
        """Return a pair's prompt and a text, with the pair's window; its fields may be those of another window."""
        pair = self.pairs[index]
        prompt = prompt_for(self._prompt, pair.region, pair.date)
        ids, head = self._tokens.encode(prompt, text, self._longest)
        window = self.windows[pair.window]
        if weather is not None:
            window["data"] = self.windows[weather]["data"]
        return NarrationSample(window, ids, head, index)

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
    """Some pairs of a split, evenly spaced, each with the weather of another date beside its own."""

    def __init__(self, pairs: NarrationPairs, most: int, seed: int) -> None:
        self._pairs = pairs
        count = min(len(pairs), most)
        self.chosen = (np.arange(count) * len(pairs) // max(count, 1)).tolist()
        """Pairs."""
        self.others = other_weather(pairs.windows, [pairs.pairs[k].window for k in self.chosen], seed)
        """Windows, one for each of them."""

    def __len__(self) -> int:
        return len(self.chosen)

    def sample(self, index: int, seed: int) -> tuple[NarrationSample, NarrationSample]:
        """Return a pair with its own window, and the same place, time and text with the fields of the other one."""
        pair, other = self.chosen[index], self.others[index]
        text = self._pairs.pairs[pair].texts[0]
        return self._pairs.told(pair, text), self._pairs.told(pair, text, other)


def collate_controlled(samples: Sequence[tuple[NarrationSample, NarrationSample]]) -> tuple[NarrationBatch, ...]:
    """Return the batch with the pairs' own windows, and the one with the others' weather."""
    own, other = zip(*samples, strict=True)
    return collate(own), collate(other)


def other_weather(windows: WindowDataset, chosen: Sequence[int], seed: int) -> list[int]:
    """Return for each of some windows one of the same place and season on another date: they differ in weather alone.

    The dates are five days apart or more, and within 45 days of each other in any year, where there are such.

    Raises:
        ValueError: all windows of a place are of one date.
    """
    store, prepared = windows.store, windows.training_set
    origins = np.array([prepared.origin(windows.split, k) for k in range(len(windows))])
    days = store.time[origins[:, 0] + prepared.grid.anchor_step].astype("datetime64[D]")
    random, found = np.random.default_rng(seed), []
    for window in chosen:
        apart = np.abs(days - days[window])
        usable = (origins[:, 1:] == origins[window, 1:]).all(1) & (apart > np.timedelta64(0, "D"))
        if not usable.any():
            raise ValueError(
                f"all windows of {windows.split} that show one place are of {days[window]}, so nothing can be judged "
                "against the weather of another date; add dates"
            )
        season = np.minimum(apart % YEAR, YEAR - apart % YEAR)
        for wanted in (apart >= FORGOTTEN, season <= SEASON):
            usable = usable & wanted if (usable & wanted).any() else usable
        found.append(int(random.choice(np.flatnonzero(usable))))
    return found


@dataclass(frozen=True)
class PairFolders:
    """Where windows and captions lie."""

    store: Path
    training_set: Path
    captions: Path
    statistics: tuple[ChannelStatistics, ...] | None = None
    """Of a trained model, by which windows are normalised in place of the training set's own."""

    def windows(self, split: str) -> WindowDataset:
        """Return the windows of a split."""
        return WindowDataset(self.store, self.training_set, split, self.statistics)

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
