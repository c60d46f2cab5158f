"""What a language model is trained towards before it sees an image: the next token of prompts and texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional as F

from configs.language import LanguageModelConfig
from configs.microvlm import Phrases
from models.language.build import build_language_model
from tasks.text.tokens import Tokens, padded
from tasks.training.loader import Weigher, ordered_batches
from tasks.training.objective import Objective
from tasks.training.share import Share
from tasks.vision_language.language_released import CaptionLanguageRelease, caption_language_config
from tasks.vision_language.texts import load_texts

Batch = dict[str, Tensor]
BATCH = 32
"""Texts of one forward pass of an evaluation."""


class PromptedTexts:
    """Texts behind the prompts under which the vision-language model will say them."""

    def __init__(self, texts: Sequence[tuple[str, str]], tokens: Tokens, phrases: Phrases, longest: int) -> None:
        self._texts, self._tokens, self._phrases, self._longest = texts, tokens, phrases, longest

    def __len__(self) -> int:
        return len(self._texts)

    def sample(self, index: int, seed: int) -> list[int]:
        """Return the token ids of a prompt and a text."""
        question, text = self._texts[index]
        prompts = (question or self._phrases.describe, self._phrases.previous, *self._phrases.recall)
        chosen = 0 if seed % 2 else (seed // 2) % len(prompts)
        prompt = prompts[chosen].format(number=1 + (seed // 64) % 8) if chosen else prompts[0]
        return self._tokens.encode(prompt, text)[0][: self._longest]


def collate(samples: Sequence[list[int]]) -> Batch:
    """Pad token ids."""
    tokens, attended = padded(samples)
    return {"tokens": tokens, "attended": attended}


def count_tokens(batch: Batch) -> dict[str, float]:
    """Return the number of tokens to predict."""
    return {"nll": float(batch["attended"][:, 1:].sum())}


class CaptionLanguageObjective(Objective):
    """Next tokens, configured by `language`, `phrases`, `longest`, `tokenizer` (folder) and `texts` (file)."""

    RELEASE = CaptionLanguageRelease

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._language: LanguageModelConfig = TypeAdapter(LanguageModelConfig).validate_python(config["language"])
        self._phrases = Phrases.model_validate(config["phrases"])
        self.tokens = Tokens.load(config["tokenizer"])
        self._texts, self._longest = Path(config["texts"]), int(config["longest"])

    def build(self) -> nn.Module:
        """Return the language model."""
        return build_language_model(self._language, len(self.tokens))

    def source(self, part: str) -> PromptedTexts:
        """Return the texts of a part."""
        return PromptedTexts(load_texts(self._texts, part), self.tokens, self._phrases, self._longest)

    @staticmethod
    def collate(samples: Sequence[list[int]]) -> Batch:
        """Pad token ids."""
        return collate(samples)

    def weigher(self) -> Weigher:
        """Return the function that counts tokens to predict."""
        return count_tokens

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the sum over tokens of -log p in nats."""
        return {"nll": _nll(model, batch)}

    def evaluate(self, model: nn.Module, share: Share) -> dict[str, float]:
        """Return nats per token of held-out texts, and those of a uniform guess, ln V."""
        sums = torch.zeros(2, dtype=torch.float64)
        for batch in ordered_batches(share, self.source("validation"), collate, batch_size=BATCH):
            sums += torch.stack([_nll(model, batch).double().cpu(), batch["attended"][:, 1:].sum().double().cpu()])
        total, count = share.sum(sums).tolist()
        return {"nll": total / count if count else math.nan, "uniform_nll": math.log(len(self.tokens))}

    def release_config(self) -> dict[str, Any]:
        """Return the architecture and the size of the vocabulary."""
        return caption_language_config(self._language, len(self.tokens))


def _nll(model: Any, batch: Batch) -> Tensor:
    tokens, attended = batch["tokens"], batch["attended"]
    logits = model(model.embed_tokens(tokens[:, :-1]), attended[:, :-1]).float()
    labels = tokens[:, 1:].masked_fill(~attended[:, 1:], -100)
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
