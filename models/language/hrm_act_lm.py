"""HRM-ACTv1 as a language model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from configs.language import HrmActV1Config
from models.language.hrm_act import HrmAct, log_stablemax
from models.language.interface import DeeplySupervised, Recurrent
from models.language.recurrent import Past
from models.reads import reads_are_free


class HrmActLM(Recurrent, DeeplySupervised):
    """HRM-ACTv1; its logits are log probabilities by stablemax, so that their softmax is what it was trained for."""

    def __init__(self, config: HrmActV1Config, vocabulary: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.hrm = HrmAct(config, vocabulary)
        self.vocabulary, self.width = self.hrm.embedding.weight.shape
        self.positions = config.positions

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Return the embeddings (..., width) of token ids."""
        return self.hrm.embed_tokens(ids)

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor | None = None, places: Tensor | None = None
    ) -> Tensor:
        """Return logits (B, S, vocabulary)."""
        self._refuse_places(places)
        self._check_length(inputs_embeds.shape[1])
        return log_stablemax(self.hrm.forward_with_embeds(inputs_embeds, attention_mask).float())

    def _read(self, inputs_embeds: Tensor, attention_mask: Tensor, past: Past) -> Tensor:
        return log_stablemax(self.hrm.read(inputs_embeds, attention_mask, past).float())

    def deep_loss(self, tokens: Tensor, labels: Tensor, attended: Tensor, seed: int) -> Tensor:
        """Return the sum over sequences of the mean loss of an ACT step; each hands its state on without gradient."""
        hrm, steps = self.hrm, self.hrm.config.max_steps
        embedded = hrm.embed_tokens(tokens)
        carry, total = hrm.initial_carry(embedded), embedded.new_zeros(())
        thinking = torch.ones((), dtype=torch.bool, device=embedded.device)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            step = hrm.act_loss(carry, embedded, labels, attended, generator=generator)
            carry, total = step.carry, total + torch.where(thinking, step.loss, 0.0)
            thinking = thinking & ~carry.halted.all()
            if reads_are_free(thinking) and not thinking:
                break
        return total / steps * len(labels)

    @property
    def embedding_table(self) -> Tensor:
        """(rows, width)."""
        return self.hrm.embedding.weight

    @property
    def last_block(self) -> nn.Module:
        """The transformer block that is computed last."""
        return self.hrm.h_level.layers[-1]

    @property
    def heads(self) -> list[nn.Module]:
        """Linear layers that 4-bit quantisation leaves alone."""
        return [self.hrm.lm_head, self.hrm.q_head]

    def checkpoint_gradients(self) -> None:
        """Compute activations of blocks a second time in the backward pass instead of keeping them."""
        self.hrm.l_level.recompute = self.hrm.h_level.recompute = True
