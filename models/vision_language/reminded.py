"""A language model that attends, in every layer, to keys and values which no token of its own made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from models.language.interface import LanguageModel
from models.language.transformers_lm import TransformersLM


@dataclass(frozen=True)
class Reminder:
    """Keys and values of every layer, as many as it has heads of them, and how open they are."""

    keys: Tensor
    """(layers, B, kv_heads, R, head_dim)"""
    values: Tensor
    """Likewise."""
    log_gate: Tensor
    """(B, R), up to 0, added to what attention gives them: at minus infinity nothing is seen of them."""


def reminder_shape(language: LanguageModel) -> tuple[int, int, int]:
    """Return layers, key-value heads and head width of a language model; `ValueError` where it has none."""
    if not isinstance(language, TransformersLM):
        raise ValueError(
            f"{type(language).__name__} takes no keys and values from outside; set recall.injection to prefix"
        )
    config = language.hf.config.get_text_config()
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, kv_heads, width


class Reminded(LanguageModel):
    """A view of a language model under a reminder.

    Every token sees the reminder as if it had been read before, at no position: RoPE has turned none of its keys.
    """

    def __init__(self, language: TransformersLM, reminder: Reminder) -> None:
        super().__init__()
        self.inner, self._reminder = language, reminder
        self.width, self.vocabulary, self.positions = language.width, language.vocabulary, language.positions

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Return the embeddings (..., width) of token ids."""
        return self.inner.embed_tokens(ids)

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor | None = None, places: Tensor | None = None
    ) -> Tensor:
        """Return logits (B, S, vocabulary)."""
        self._refuse_places(places)
        if attention_mask is None:
            attention_mask = torch.ones(inputs_embeds.shape[:2], device=inputs_embeds.device)
        return self._run(inputs_embeds, attention_mask, self._cache()).logits

    def _next(self, inputs_embeds: Tensor, attention_mask: Tensor, memory: Any) -> tuple[Tensor, Any]:
        out = self._run(inputs_embeds, attention_mask, memory or self._cache(), logits_to_keep=1)
        return out.logits[:, -1], out.past_key_values

    def _cache(self) -> DynamicCache:
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(zip(self._reminder.keys, self._reminder.values, strict=True)):
            cache.update(keys, values, layer)
        return cache

    def _run(self, inputs_embeds: Tensor, attended: Tensor, cache: DynamicCache, **more: Any) -> Any:
        """Read embeddings (B, S, width) after what is in the cache; `attended` (B, T) covers all but the reminder."""
        new = inputs_embeds.shape[1]
        self._check_length(attended.shape[1])
        positions = (attended.long().cumsum(-1) - 1).clamp_min(0)[:, -new:]
        return self.inner.hf(
            inputs_embeds=inputs_embeds,
            attention_mask=self._mask(attended.bool(), new, inputs_embeds.dtype),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **more,
        )

    def _mask(self, attended: Tensor, new: int, dtype: torch.dtype) -> Tensor:
        """Return what is added to attention logits, (B, 1, new, R + T)."""
        batch, total = attended.shape
        lowest = torch.finfo(dtype).min
        causal = torch.ones(total, total, dtype=torch.bool, device=attended.device).tril()[-new:]
        hidden = ~(causal & attended[:, None, :])
        tokens = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill(hidden, lowest)
        gate = self._reminder.log_gate.to(dtype).clamp_min(lowest)[:, None, :].expand(batch, new, -1)
        return torch.cat([gate, tokens], -1)[:, None]

    @property
    def embedding_table(self) -> Tensor:
        """(rows, width)."""
        return self.inner.embedding_table

    @property
    def last_block(self) -> nn.Module:
        """The transformer block that is computed last."""
        return self.inner.last_block

    @property
    def heads(self) -> list[nn.Module]:
        """Linear layers that 4-bit quantisation leaves alone."""
        return self.inner.heads

    def checkpoint_gradients(self) -> None:
        """Compute activations of blocks a second time in the backward pass instead of keeping them."""
        self.inner.checkpoint_gradients()
