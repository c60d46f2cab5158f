"""What a language model is: soft prompts in, logits or text out; frozen, adapted or trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from models.language.recurrent import Past


class LanguageModel(nn.Module, ABC):
    """A causal language model that reads embeddings.

    Embeddings, of tokens and of soft prompts alike, are on the scale of the model's embedding table; what the model
    multiplies them by is its own affair. Modules whose parameters are frozen stay in evaluation mode.
    """

    FUSED: ClassVar[dict[str, str]] = {}
    """Linear layers that hold another one, by the name that LoRA settings use for it."""

    width: int
    """Channels of an embedding."""
    vocabulary: int
    """Number of token ids that logits are given for."""
    positions: int
    """Longest sequence."""

    @abstractmethod
    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Return the embeddings (..., width) of token ids."""

    @abstractmethod
    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor | None = None, places: Tensor | None = None
    ) -> Tensor:
        """Return logits (B, S, vocabulary), whose softmax at i is the distribution of the token at i + 1.

        `inputs_embeds` (B, S, width); `attention_mask` (B, S) is nonzero at tokens and zero at padding. Where several
        sequences share their beginning, `places` (S,) says at which place in its own sequence each token stands, below
        `positions`, and the mask (B, S, S) is true where a token sees another one.
        """

    @abstractmethod
    def _next(self, inputs_embeds: Tensor, attention_mask: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """Return logits (B, vocabulary) of the next token, and a memory of all that was read.

        `inputs_embeds` is what the memory, None at first, has not seen yet; the mask covers both.
        """

    @property
    @abstractmethod
    def embedding_table(self) -> Tensor:
        """(rows, width)."""

    @property
    @abstractmethod
    def last_block(self) -> nn.Module:
        """The transformer block that is computed last."""

    @property
    @abstractmethod
    def heads(self) -> list[nn.Module]:
        """Linear layers that 4-bit quantisation leaves alone."""

    @abstractmethod
    def checkpoint_gradients(self) -> None:
        """Compute activations of blocks a second time in the backward pass instead of keeping them."""

    def embedding_scale(self) -> float:
        """Return the root mean square of the embedding table, which soft prompts should match."""
        return self.embedding_table.detach().float().square().mean().sqrt().item()

    def freeze(self) -> None:
        """Train nothing of this model."""
        self.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what is trained; what is frozen stays in evaluation mode, without dropout."""
        super().train(False)
        self.training = mode and any(parameter.requires_grad for parameter in self.parameters())
        for child in self.children() if mode else ():
            _train_unfrozen(child)
        return self

    @torch.no_grad()
    def generate(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        end: int,
        generator: torch.Generator | None = None,
    ) -> list[list[int]]:
        """Continue each prompt (B, S, width) until the token `end`; return the new tokens without it.

        Temperature 0 takes the likeliest token. Otherwise it is drawn with `generator` from the smallest set of
        tokens that has the probability `top_p`. Prompts of different length are padded on the left.
        """
        self._check_prompts(inputs_embeds, attention_mask, max_new_tokens)
        chosen: list[Tensor] = []
        memory = None
        finished = torch.zeros(len(inputs_embeds), dtype=torch.bool, device=inputs_embeds.device)
        with _evaluating(self):
            while len(chosen) < max_new_tokens and not finished.all():
                logits, memory = self._next(inputs_embeds, attention_mask, memory)
                token = _choose(logits.float(), temperature, top_p, generator)
                chosen.append(token)
                finished |= token == end
                inputs_embeds = self.embed_tokens(token[:, None]).to(inputs_embeds.dtype)
                attention_mask = torch.cat([attention_mask, torch.ones_like(attention_mask[:, :1])], 1)
        rows = torch.stack(chosen, 1).tolist()
        return [row[: row.index(end)] if end in row else row for row in rows]

    def _refuse_places(self, places: Tensor | None) -> None:
        if places is not None:
            raise ValueError(
                f"{type(self).__name__} reads no sequences that share their beginning; set questions_at_once to 1"
            )

    def _check_prompts(self, inputs_embeds: Tensor, attention_mask: Tensor, max_new_tokens: int) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {max_new_tokens}; ask for at least 1")
        self._check_length(inputs_embeds.shape[1] + max_new_tokens)
        if not attention_mask[:, -1].all():
            raise ValueError("a prompt ends in padding; pad prompts on the left")

    def _check_length(self, length: int, places: Tensor | None = None) -> None:
        if places is None and length > self.positions:
            raise ValueError(f"the sequence has {length} positions; this language model takes {self.positions}")


class Recurrent(LanguageModel):
    """A language model whose blocks are those of `models.language.recurrent`."""

    ROOM: ClassVar[int] = 2**31
    """Most bytes of keys and values that are kept of a prompt, in all calls of the blocks; of a longer one nothing is
    kept, and every new token is read with all before it."""
    FUSED: ClassVar[dict[str, str]] = {
        "q_proj": "qkv_proj",
        "k_proj": "qkv_proj",
        "v_proj": "qkv_proj",
        "gate_proj": "gate_up_proj",
        "up_proj": "gate_up_proj",
    }

    @abstractmethod
    def _read(self, inputs_embeds: Tensor, attention_mask: Tensor, past: Past) -> Tensor:
        """Return logits (B, S, vocabulary) of new tokens; the mask covers those of the past as well."""

    def _next(self, inputs_embeds: Tensor, attention_mask: Tensor, memory: Any) -> tuple[Tensor, Any]:
        seen, past = memory or (inputs_embeds[:, :0], Past(self.ROOM))
        seen = torch.cat([seen, inputs_embeds], 1)
        if past.full:
            return self(seen, attention_mask)[:, -1], (seen, past)
        self._check_length(seen.shape[1])
        return self._read(inputs_embeds, attention_mask, past)[:, -1], (seen, past)


class DeeplySupervised(LanguageModel):
    """A language model that is trained by a loss of its own; its configuration is `DEEP`."""

    @abstractmethod
    def deep_loss(self, tokens: Tensor, labels: Tensor, attended: Tensor, seed: int) -> Tensor:
        """Return the sum over sequences of the loss of `tokens`, `labels` and `attended`, all (B, S).

        Whatever is drawn at random comes from `seed`.
        """


def _train_unfrozen(module: nn.Module) -> None:
    """Put modules into training mode whose parameters are all trained, and the dropout of LoRA adapters."""
    trained = [parameter.requires_grad for parameter in module.parameters()]
    if trained and all(trained):
        module.train()
        return
    for name, child in module.named_children():
        if name == "lora_dropout":
            child.train()
        else:
            _train_unfrozen(child)
    # A layer of transformers recomputes in training mode only; its own dropout modules stay as they are.
    if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
        module.training = True


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _choose(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator | None) -> Tensor:
    """Return a token for each row of (B, V)."""
    if temperature == 0:
        return logits.argmax(-1)
    if generator is None:
        raise ValueError("a temperature above 0 needs a generator")
    probability, order = (logits / temperature).softmax(-1).sort(-1, descending=True)
    before = probability.cumsum(-1) - probability
    kept = (before < top_p).sum(-1, keepdim=True)
    mass = probability.cumsum(-1)
    draw = torch.rand(len(logits), 1, generator=generator, device=generator.device).to(mass)
    place = torch.searchsorted(mass, draw * mass.gather(-1, kept - 1), right=True)
    return order.gather(-1, place.minimum(kept - 1)).squeeze(-1)
