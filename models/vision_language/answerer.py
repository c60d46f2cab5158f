"""A decoder that reads what an encoder saw of an image, a question, and its own answer so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.language.interface import LanguageModel
from models.language.trm_lm import TrmLM


@dataclass(frozen=True)
class AnswerBatch:
    """Questions about items, with their answers; `[image K][question][answer]` is the sequence."""

    features: Tensor
    """(B, K, width) float16, what the encoder saw of each item."""
    tokens: Tensor
    """(B, L) int64: question and answer, padded on the right."""
    attended: Tensor
    """(B, L) bool: a token, no padding."""
    learned: Tensor
    """(B, L) bool: a token of the answer, or its end."""

    @property
    def heads(self) -> Tensor:
        """(B,): how many tokens come before each answer."""
        return (self.attended & ~self.learned).sum(-1)

    def rows(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        return dict(vars(self))


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

    def embed(self, batch: AnswerBatch) -> tuple[Tensor, Tensor]:
        """Return embeddings (B, K + L, width) of a batch's sequences, and which of them are there (B, K + L)."""
        image = self.image_tokens(batch.features)
        there = batch.attended.new_ones(len(image), self.tokens)
        embeds = torch.cat([image, self.language.embed_tokens(batch.tokens)], 1)
        return embeds, torch.cat([there, batch.attended], 1)

    def of_tokens(self, logits: Tensor) -> Tensor:
        """Return, of logits (B, K + L, V) of whole sequences, those (B, L, V) that foretell the tokens of a batch.

        The first token is not foretold where no image comes before it: its logits are zero.
        """
        if self.tokens:
            return logits[:, self.tokens - 1 : -1]
        return torch.cat([torch.zeros_like(logits[:, :1]), logits[:, :-1]], 1)

    def forward(self, batch: AnswerBatch) -> Tensor:
        """Return logits (B, L, V), which at i are those of token i."""
        return self.of_tokens(self.language(*self.embed(batch)))

    def by_depth(self, batch: AnswerBatch, steps: int) -> Iterator[Tensor]:
        """Yield logits (B, L, V) after each of `steps` steps of a recursive decoder; a plain one has a single step."""
        if not isinstance(self.language, TrmLM):
            yield self(batch)
            return
        for logits in self.language.by_depth(*self.embed(batch), steps):
            yield self.of_tokens(logits)

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
