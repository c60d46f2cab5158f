"""A decoder that reads what an encoder saw of an image, a question, and its own answer so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from models.language.interface import LanguageModel
from models.language.masks import shared_beginning
from models.language.trm_lm import TrmLM


@dataclass(frozen=True)
class AnswerBatch:
    """Questions about items, Q about each, with their answers; `[image K][question][answer]` is the sequence.

    The B = items x Q questions stand item by item. Of those about an item that has fewer, the last are empty.
    """

    features: Tensor
    """(items, K, width) float16, what the encoder saw of each item."""
    tokens: Tensor
    """(B, L) int64: question and answer, padded on the right."""
    attended: Tensor
    """(B, L) bool: a token, no padding."""
    learned: Tensor
    """(B, L) bool: a token of the answer, or its end."""

    @property
    def at_once(self) -> int:
        """Q."""
        return len(self.tokens) // len(self.features)

    @property
    def asked(self) -> Tensor:
        """(B,) bool: a question that is not empty."""
        return self.learned.any(-1)

    @property
    def heads(self) -> Tensor:
        """(B,): how many tokens come before each answer."""
        return (self.attended & ~self.learned).sum(-1)

    def rows(self) -> dict[str, Tensor]:
        """Return the tensors by name, (items, ...)."""
        return {name: tensor.unflatten(0, (len(self.features), -1)) for name, tensor in vars(self).items()}

    @classmethod
    def of_rows(cls, rows: Mapping[str, Tensor]) -> Self:
        """Return the batch whose `rows` are given."""
        return cls(**{name: tensor.flatten(0, 1) for name, tensor in rows.items()})


class Sequences(NamedTuple):
    """What a decoder reads: one sequence an item, which the questions about it follow."""

    embeds: Tensor
    """(items, K + Q L, width)"""
    mask: Tensor
    """(items, K + L), which are there; with several questions (items, S, S), which sees which."""
    places: Tensor | None
    """(S,), where each stands in the sequence of its question alone; None with a single question."""


class Answerer(nn.Module):
    """A frozen projection of what the encoder saw, a trained one into the decoder's width, and the decoder.

    Attributes:
        tokens: K, image tokens; 0 where the model is blind.
    """

    def __init__(
        self, language: LanguageModel, tokens: int, width: int, projected: int | None, *, vision: bool
    ) -> None:
        """Make an answerer for items of `tokens` x `width`, `projected` to so many channels, if at all."""
        super().__init__()
        self.language = language
        self.tokens = tokens if vision else 0
        self.projection: nn.Module | None = None
        self.adapter: nn.Module | None = None
        if not vision:
            return
        self.projection = nn.Linear(width, projected).requires_grad_(False) if projected else nn.Identity()
        width = projected or width
        self.adapter = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, language.width))
        self.positions = nn.Parameter(torch.randn(tokens, language.width))
        # A model that is made to be filled from a file has no weights yet.
        scale = 1.0 if language.embedding_table.is_meta else language.embedding_scale()
        self.scale = nn.Parameter(torch.tensor(scale))

    def project_as(self, projection: Mapping[str, Tensor]) -> None:
        """Take the encoder's projection: `weight` and `bias`."""
        if projection and self.projection is not None:
            self.projection.load_state_dict(dict(projection))

    def image_tokens(self, features: Tensor) -> Tensor:
        """Return embeddings (B, K, width of the decoder) of what was seen, (B, K, width)."""
        if self.projection is None or self.adapter is None:
            return features.new_zeros(len(features), 0, self.language.width, dtype=self.language.embedding_table.dtype)
        seen = self.adapter(self.projection(features.to(self.language.embedding_table.dtype)))
        return self.scale * (seen + self.positions)

    def embed(self, batch: AnswerBatch) -> Sequences:
        """Return the sequences of a batch: what is asked about an item follows one copy of its image tokens.

        The image is read once for all of its questions, and each is answered as if it were the only one.
        """
        image = self.image_tokens(batch.features)
        items = len(image)
        words = self.language.embed_tokens(batch.tokens).unflatten(0, (items, -1)).flatten(1, 2)
        attended = batch.attended.unflatten(0, (items, -1)).flatten(1, 2)
        there = torch.cat([attended.new_ones(items, self.tokens), attended], 1)
        embeds = torch.cat([image, words], 1)
        if batch.at_once == 1:
            return Sequences(embeds, there, None)
        return Sequences(embeds, *shared_beginning(there, self.tokens, batch.tokens.shape[1]))

    def of_questions(self, values: Tensor, batch: AnswerBatch) -> Tensor:
        """Return, of values (items, K + Q L, C) of sequences, those (B, L, C) at the tokens of questions."""
        return values[:, self.tokens :].unflatten(1, (batch.at_once, -1)).flatten(0, 1)

    def foretold(self, logits: Tensor, batch: AnswerBatch) -> Tensor:
        """Return, of logits (items, K + Q L, V) of sequences, those (B, L, V) that foretell the tokens of a batch.

        The first token is not foretold where no image comes before it: its logits are zero.
        """
        if self.tokens:
            first = logits[:, self.tokens - 1].repeat_interleave(batch.at_once, 0)[:, None]
        else:
            first = logits.new_zeros(len(batch.tokens), 1, logits.shape[-1])
        return torch.cat([first, self.of_questions(logits, batch)[:, :-1]], 1)

    def forward(self, batch: AnswerBatch) -> Tensor:
        """Return logits (B, L, V), which at i are those of token i."""
        return self.foretold(self.language(*self.embed(batch)), batch)

    def by_depth(self, batch: AnswerBatch, steps: int) -> Iterator[Tensor]:
        """Yield logits (B, L, V) after each of `steps` steps of a recursive decoder; a plain one has a single step."""
        if not isinstance(self.language, TrmLM):
            yield self(batch)
            return
        embeds, mask, places = self.embed(batch)
        for logits in self.language.by_depth(embeds, mask, steps, places):
            yield self.foretold(logits, batch)

    def prompts(self, features: Tensor, questions: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return embeddings (B, K + L, width) of image and question, and which are there.

        They are padded on the left as a whole: so the distance of a token to another is that of the sequence alone,
        however long the others are.
        """
        longest = max(map(len, questions))
        image = self.image_tokens(features)
        rows, there = [], []
        for seen, ids in zip(image, questions, strict=True):
            words = self.language.embed_tokens(torch.tensor(list(ids), dtype=torch.int64, device=features.device))
            pad = longest - len(ids)
            rows.append(torch.cat([words.new_zeros(pad, words.shape[-1]), seen.to(words.dtype), words]))
            there.append([False] * pad + [True] * (self.tokens + len(ids)))
        return torch.stack(rows), torch.tensor(there, device=features.device)
