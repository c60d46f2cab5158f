"""TRM as a language model."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from configs.recursive import TrmConfig
from models.language.interface import Recurrent
from models.language.recurrent import Past
from models.language.trm import Trm


class TrmLM(Recurrent):
    """TRM over tokens.

    Attributes:
        depth: steps of supervision of every forward pass; more than in training may be asked for.
    """

    def __init__(self, config: TrmConfig, vocabulary: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.trm = Trm(config, vocabulary)
        self.vocabulary, self.width = self.trm.embedding.weight.shape
        self.positions = config.positions
        self.depth = config.evaluation_steps or config.supervision_steps

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Return the embeddings (..., width) of token ids."""
        return self.trm.embedding(ids)

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor | None = None, places: Tensor | None = None
    ) -> Tensor:
        """Return logits (B, S, vocabulary)."""
        *_, last = self.by_depth(inputs_embeds, attention_mask, self.depth, places)
        return last

    def by_depth(
        self, inputs_embeds: Tensor, attention_mask: Tensor | None, steps: int, places: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Yield the logits (B, S, vocabulary) after each of `steps` steps."""
        self._check_length(inputs_embeds.shape[1], places)
        for step in self.trm.refine(inputs_embeds, attention_mask, steps, places):
            yield step.logits

    def _read(self, inputs_embeds: Tensor, attention_mask: Tensor, past: Past) -> Tensor:
        return self.trm.read(inputs_embeds, attention_mask, past, self.depth)

    @property
    def embedding_table(self) -> Tensor:
        """(rows, width)."""
        return self.trm.embedding.weight

    @property
    def last_block(self) -> nn.Module:
        """The transformer block that is computed last."""
        return self.trm.net.layers[-1]

    @property
    def heads(self) -> list[nn.Module]:
        """Linear layers that 4-bit quantisation leaves alone."""
        return [self.trm.lm_head, *([self.trm.halt_head] if self.trm.halt_head is not None else [])]

    def checkpoint_gradients(self) -> None:
        """Compute activations of blocks a second time in the backward pass instead of keeping them."""
        self.trm.net.recompute = True
