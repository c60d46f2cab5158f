"""MicroVLM-V: images as a prefix of a small language model, and a memory of those that were seen before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.vision_language import MicroVlmModelConfig
from models.build import build
from models.language.interface import LanguageModel
from models.vision_language.adapter import PrefixAdapter
from models.vision_language.alignment import Alignment, contrastive
from models.vision_language.batch import Texts, VlmBatch, numbers_of
from models.vision_language.gaussian_memory import MemoryState
from models.vision_language.recall import Reading, Recall
from models.vision_language.reminded import Reminded, reminder_shape

Gather = Callable[[Tensor], tuple[Tensor, slice]]
"""From a rank's rows to those of all ranks, and where its own are among them."""


def alone(rows: Tensor) -> tuple[Tensor, slice]:
    """Return the rows of the only rank."""
    return rows, slice(0, len(rows))


@dataclass(frozen=True)
class Seen:
    """What the model makes of images."""

    patches: Tensor
    """(B, N, width)"""
    pooled: Tensor
    """(B, K, width), normalised."""
    prefix: Tensor
    """(B, K, width), on the scale of the language model's embeddings."""


@dataclass(frozen=True)
class TextLogits:
    """What the model foretells, token by token."""

    told: Tensor
    """(B, L, vocabulary) of the texts with their images."""
    recalled: Tensor
    """(episodes, L, vocabulary) of the texts that the memory has to tell."""


@dataclass(frozen=True)
class Outcome:
    """What comes of a batch."""

    terms: dict[str, Tensor]
    """What a training minimises, by name, in nats; each is summed there."""
    logits: TextLogits


def nats_of(logits: Tensor, texts: Texts) -> Tensor:
    """Return -log p (B,) of the learned tokens of texts under logits (B, L, vocabulary), in nats."""
    tokens = texts.tokens
    nll = F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)
    return (nll * texts.learned).sum(-1)


class MicroVLM(nn.Module):
    """A vision tower, an adapter, a language model, an aligned space and an episodic memory.

    Attributes:
        vision, adapter, alignment, recall, language: its parts; groups of parameters are named after them.
    """

    def __init__(self, config: MicroVlmModelConfig, language: LanguageModel) -> None:
        super().__init__()
        self.language = language
        self.vision = build(config.vision)
        # A model that is made to be filled from a file has no weights yet.
        scale = 1.0 if language.embedding_table.is_meta else language.embedding_scale()
        self.adapter = PrefixAdapter(config.adapter, self.vision.width, self.vision.patches, language.width, scale)
        self.alignment = Alignment(config.alignment, language.width)
        by_layer = config.recall.injection == "key_value"
        shape = reminder_shape(language) if by_layer else None
        self.recall = Recall(config.recall, language.width, config.alignment.width, scale, shape)

    # -- images ------------------------------------------------------------------------------------------------

    def see(self, images: Tensor) -> Seen:
        """Return what the model makes of images (B, 3, side, side), uint8."""
        patches = self.adapter.patches(self.vision(images))
        pooled = self.adapter.pool(patches)
        return Seen(patches, pooled, self.adapter.scale * pooled)

    # -- memory ------------------------------------------------------------------------------------------------

    def remember(self, pooled: Tensor, written: Tensor, first: Tensor) -> MemoryState:
        """Return the memory of episodes (B, E, K, width) of images; `written` (B, E) says which of them are in it, and
        `first` (B,) how many were seen before.
        """
        return self.recall.memory.write(self.recall.codes(pooled, first), written)

    def ask(self, questions: Texts, now: Tensor) -> Tensor:
        """Return queries (B, width) of questions that are asked while the image `now` (B,) is looked at, or is next."""
        embeddings = self.language.embed_tokens(questions.tokens)
        return self.recall.cues(self.alignment.text_features(embeddings, questions.attended), now)

    # -- texts -------------------------------------------------------------------------------------------------

    def logits(
        self, told: Texts, prefix: Tensor, shown: Tensor, content: Tensor | None = None, scope: Tensor | None = None
    ) -> Tensor:
        """Return logits (B, L, vocabulary), which at i are those of token i of the texts.

        Args:
            told: texts.
            prefix: (B, K, width).
            shown: (B,) bool: the prefix is there; False: nothing of the image is.
            content: (B, width) that was read from the memory, if there is one.
            scope: (B,) the logit of its being any answer.
        """
        embeds, attended, language = self._sequence(prefix, shown, content, scope)
        before = embeds.shape[1]
        embeds = torch.cat([embeds, self.language.embed_tokens(told.tokens)], 1)
        logits = language(embeds, torch.cat([attended, told.attended], 1))
        return logits[:, before - 1 : -1]

    def _sequence(
        self, prefix: Tensor, shown: Tensor, content: Tensor | None, scope: Tensor | None
    ) -> tuple[Tensor, Tensor, LanguageModel]:
        """Return what stands before a text, where there is something (B, S), and the language model that reads it."""
        attended = shown[:, None].expand(-1, prefix.shape[1])
        if content is None or scope is None:
            return prefix, attended, self.language
        if self.recall.scale is None:
            return prefix, attended, Reminded(self.language, self.recall.reminder(content, scope))  # type: ignore[arg-type]
        told = self.recall.prefix(content)
        open_ = (scope > 0)[:, None].expand(-1, told.shape[1])
        # The gate of a prefix is its weight; what is shut is no token at all.
        told = told * torch.sigmoid(scope)[:, None, None]
        return torch.cat([told, prefix], 1), torch.cat([open_, attended], 1), self.language

    def forward(self, batch: VlmBatch, gather: Gather = alone) -> Outcome:
        """Return what a training minimises; `gather` brings the rows of all ranks, whose texts are negatives too."""
        seen = self.see(batch.images)
        episodes, steps = batch.written.shape
        state = self.remember(seen.pooled.unflatten(0, (episodes, steps)), batch.written, batch.first)
        reading = self.recall.read(self.queries(batch), state)
        logits = self._text_logits(batch, seen, reading)
        terms = {
            "nll": nats_of(logits.told, batch.told),
            "recall": nats_of(logits.recalled, batch.recalled),
            **self._alignment(batch, seen, gather),
            "scope": self._scope(batch, reading),
            "cue": self._cue(batch, reading),
            "memory_kl": self.recall.memory.memory_kl(state) / state.mean[0].numel(),
            "address_kl": self.recall.memory.address_kl(reading.address).flatten() / reading.address.shape[-1],
        }
        return Outcome(terms, logits)

    def queries(self, batch: VlmBatch) -> Tensor:
        """Return queries (episodes, E + 3, width): every image's prompt, the question, two that have no answer."""
        episodes, steps = batch.written.shape
        latest = batch.first + batch.written.sum(-1) - 1
        now = torch.where(batch.shown, latest, latest + 1)
        prompts = self.ask(batch.prompts, latest.repeat_interleave(steps)).unflatten(0, (episodes, steps))
        questions = self.ask(batch.questions, now.repeat(3)).unflatten(0, (3, episodes)).transpose(0, 1)
        return torch.cat([prompts, questions], 1)

    def _text_logits(self, batch: VlmBatch, seen: Seen, reading: Reading) -> TextLogits:
        """Return logits of each text with its image, and of each recalled text without it."""
        episodes, steps = batch.written.shape
        rows = torch.arange(episodes, device=batch.asked.device)
        own = reading.of(rows.repeat_interleave(steps), torch.arange(steps, device=rows.device).repeat(episodes))
        asked = reading.of(rows, torch.full_like(rows, steps))
        everything = torch.ones(len(batch.images), dtype=torch.bool, device=rows.device)
        last = self.last_shown(batch, seen.prefix)
        return TextLogits(
            self.logits(batch.told, seen.prefix, everything, own.content[0], own.scope[0]),
            self.logits(batch.recalled, last, batch.shown, asked.content[0], asked.scope[0]),
        )

    def nats(
        self, told: Texts, prefix: Tensor, shown: Tensor, content: Tensor | None = None, scope: Tensor | None = None
    ) -> Tensor:
        """Return -log p (B,) of the learned tokens of texts, in nats; arguments as of `logits`."""
        return nats_of(self.logits(told, prefix, shown, content, scope), told)

    @torch.no_grad()
    def write(
        self,
        prompts: Sequence[Sequence[int]],
        prefix: Tensor,
        shown: Tensor,
        reading: Reading | None = None,
        *,
        max_new_tokens: int,
        end: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> list[list[int]]:
        """Return the token ids that follow each prompt, up to `end`.

        Args:
            prompts: token ids of B prompts.
            prefix: (B, K, width), of which the rows in `shown` (B,) are there.
            reading: of the prompts as questions to a memory, (1, B).
            max_new_tokens: most tokens.
            end: ends a text.
            temperature: 0 takes the likeliest token.
            top_p: mass of the tokens that are drawn from.
            generator: what draws them.
        """
        content, scope = (reading.content[0], reading.scope[0]) if reading else (None, None)
        embeds, attended, language = self._sequence(prefix, shown, content, scope)
        longest = max(map(len, prompts))
        tokens = torch.tensor([[0] * (longest - len(row)) + list(row) for row in prompts], device=prefix.device)
        places = torch.arange(longest, device=prefix.device)
        there = places >= longest - torch.tensor([[len(row)] for row in prompts], device=prefix.device)
        return language.generate(
            torch.cat([embeds, self.language.embed_tokens(tokens)], 1),
            torch.cat([attended, there], 1),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            end=end,
            generator=generator,
        )

    @staticmethod
    def last_shown(batch: VlmBatch, prefix: Tensor) -> Tensor:
        """Return the prefix (episodes, K, width) of the last image that was written of each episode."""
        episodes, steps = batch.written.shape
        last = batch.written.sum(-1) - 1
        return prefix.unflatten(0, (episodes, steps))[torch.arange(episodes, device=last.device), last]

    def _alignment(self, batch: VlmBatch, seen: Seen, gather: Gather) -> dict[str, Tensor]:
        """Return each image's contrastive nats (B,) against its own text: by the whole among the texts of all ranks
        and, if so set, by words among those of this one.
        """
        space, captions = self.alignment, batch.captions
        embeddings = self.language.embed_tokens(captions.tokens)
        numbers, mine = gather(numbers_of(captions))
        images, _ = gather(space.images(seen.pooled))
        texts, _ = gather(space.texts(embeddings, captions.attended))
        same = (numbers[mine, None] == numbers).to(embeddings.dtype)
        to_text, to_image = images[mine] @ texts.t(), texts[mine] @ images.t()
        scale = space.inverse_temperature
        found = {"alignment": contrastive(scale * to_text, scale * to_image, same)}
        if space.patch is not None:
            fine = space.fine_scores(seen.patches, space.words(embeddings, captions.attended), captions.attended)
            found["fine"] = contrastive(scale * fine, scale * fine.t(), same[:, mine])
        return found

    def _scope(self, batch: VlmBatch, reading: Reading) -> Tensor:
        """Return each query's cross-entropy of being answered by the memory (episodes, E + 3)."""
        right = torch.zeros_like(reading.scope)
        right[:, batch.written.shape[1]] = 1
        return F.binary_cross_entropy_with_logits(reading.scope, right, reduction="none")

    def _cue(self, batch: VlmBatch, reading: Reading) -> Tensor:
        """Return each question's nats (episodes,) of the step that it is about."""
        scores = reading.query[:, batch.written.shape[1]] @ self.recall.when.t() * 10
        return F.cross_entropy(scores, batch.asked % self.recall.steps, reduction="none")
