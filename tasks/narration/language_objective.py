"""What a language model is trained towards here: the next token of texts about the weather."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.weather_lm import LanguageRecipe
from models.language.build import build_language_model
from models.language.interface import DeeplySupervised
from tasks.narration.documents import Document, load_documents, prompt_for
from tasks.narration.language_released import LanguageRelease, language_config
from tasks.text.tokens import Tokens, padded
from tasks.training.loader import Weigher, ordered_batches
from tasks.training.objective import Objective
from tasks.training.share import Share

Batch = dict[str, Tensor]
BATCH = 32
"""Documents of one forward pass of an evaluation."""
IGNORED = -100


class Documents:
    """Token ids of what is said about some regions of one date, in an order that is drawn anew each time."""

    def __init__(self, documents: Sequence[Document], tokens: Tokens, length: int, prompt: str, regions: int) -> None:
        self._length, self._others = length, regions - 1
        self._wordings = [
            [tokens.encode(prompt_for(prompt, d.region, d.date), text)[0] for text in d.texts] for d in documents
        ]
        self._dates = [d.date for d in documents]
        self._of_date: dict[date, list[int]] = defaultdict(list)
        for index, day in enumerate(self._dates):
            self._of_date[day].append(index)

    def __len__(self) -> int:
        return len(self._wordings)

    def sample(self, index: int, seed: int) -> list[int]:
        """Return up to `length` token ids: of document `index`, and of others of its date."""
        random = np.random.default_rng(seed)
        others = [other for other in self._of_date[self._dates[index]] if other != index]
        chosen = [index, *random.permutation(others)[: self._others].tolist()]
        wordings = [wording for k in chosen for wording in self._wordings[k]]
        return [token for k in random.permutation(len(wordings)) for token in wordings[k]][: self._length]


def collate(samples: Sequence[list[int]]) -> Batch:
    """Pad documents; `labels` are the tokens one place further, -100 where there is none."""
    tokens, attended = padded(samples)
    following = attended[:, 1:]
    return {
        "tokens": tokens[:, :-1],
        "attended": attended[:, :-1],
        "labels": tokens[:, 1:].masked_fill(~following, IGNORED),
    }


def count_tokens(batch: Batch) -> dict[str, float]:
    """Return the number of tokens to predict."""
    return {"nll": float((batch["labels"] != IGNORED).sum())}


def count_sequences(batch: Batch) -> dict[str, float]:
    """Return the number of sequences."""
    return {"act": float(len(batch["labels"]))}


class LanguageObjective(Objective):
    """Next tokens, configured by `recipe`, `tokenizer` (folder) and `documents` (file).

    HRM-ACTv1 is trained as published, by deep supervision: every ACT step of a batch has a loss of its own, which
    includes that of its halting values, and hands its state on without a gradient.
    """

    RELEASE = LanguageRelease

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.recipe = LanguageRecipe.model_validate(config["recipe"])
        assert self.recipe.text is not None
        self.tokens = Tokens.load(config["tokenizer"])
        self._documents = load_documents(Path(config["documents"]))
        self._deep = self.recipe.model.DEEP

    def build(self) -> nn.Module:
        """Return the language model."""
        return build_language_model(self.recipe.model, len(self.tokens))

    def source(self, part: str) -> Documents:
        """Return the documents of a part."""
        text = self.recipe.text
        assert text is not None
        chosen = [document for document in self._documents if document.part == part]
        return Documents(chosen, self.tokens, text.length, self.recipe.prompt, text.regions)

    @staticmethod
    def collate(samples: Sequence[list[int]]) -> Batch:
        """Pad documents."""
        return collate(samples)

    def weigher(self) -> Weigher:
        """Return the function that counts tokens to predict, or sequences for deep supervision."""
        return count_sequences if self._deep else count_tokens

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the sum over tokens of -log p in nats, or the sum over sequences of the mean loss of an ACT step."""
        if self._deep:
            assert isinstance(model, DeeplySupervised)
            return {"act": model.deep_loss(batch["tokens"], batch["labels"], batch["attended"], self.moment.seed)}
        return {"nll": self._nll(model, batch)}

    def _nll(self, model: Any, batch: Batch) -> Tensor:
        logits = model(model.embed_tokens(batch["tokens"]), batch["attended"]).float()
        labels = batch["labels"].flatten()
        return F.cross_entropy(logits.flatten(0, 1), labels, ignore_index=IGNORED, reduction="sum")

    def evaluate(self, model: nn.Module, share: Share) -> dict[str, float]:
        """Return nats per token of held-out documents, and those of a uniform guess, ln V."""
        sums = torch.zeros(2, dtype=torch.float64)
        for batch in ordered_batches(share, self.source("validation"), collate, batch_size=BATCH):
            nll = self._nll(model, batch).double().cpu()
            sums += torch.stack([nll, (batch["labels"] != IGNORED).sum().double().cpu()])
        nll_sum, count = share.sum(sums).tolist()
        nats = nll_sum / count if count else math.nan
        return {"nll": nats, "perplexity": math.exp(min(nats, 50.0)), "uniform_nll": math.log(len(self.tokens))}

    def release_config(self) -> dict[str, Any]:
        """Return the recipe and the size of the vocabulary."""
        return language_config(self.recipe, len(self.tokens))
