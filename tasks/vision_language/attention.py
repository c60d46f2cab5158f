"""How the words of a text attend to the prefix of their image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from models.language.transformers_lm import TransformersLM
from models.vision_language.batch import VlmBatch
from models.vision_language.microvlm import MicroVLM

NEAR_ZERO = 0.01
"""Share of a word's attention to the image below which a prefix token counts as not looked at."""


@torch.no_grad()
def text_attention(model: MicroVLM, batch: VlmBatch) -> Tensor | None:
    """Return how much each token of each told text attends to each prefix token (B, L, K), the mean over layers and
    heads; none where the language model does not tell.
    """
    language = model.language
    if not isinstance(language, TransformersLM):
        return None
    prefix, told = model.see(batch.images).prefix, batch.told
    embeds = torch.cat([prefix, language.embed_tokens(told.tokens)], 1)
    ones = torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device)
    attended = torch.cat([ones, told.attended.long()], 1)
    with _telling(language):
        layers = language.hf(inputs_embeds=embeds, attention_mask=attended, output_attentions=True).attentions
    count = prefix.shape[1]
    return torch.stack([layer[:, :, count:, :count].mean(1) for layer in layers]).mean(0)


def attention_statistics(weights: Tensor, words: Tensor) -> dict[str, float]:
    """Return mean and largest weight, entropy and sparsity of attention (B, L, K) at the places in `words` (B, L).

    Entropy, in nats, and sparsity, the share of prefix tokens below 1 %, are those of a word's attention to the image
    alone, scaled to a sum of 1.
    """
    chosen = weights[words].double()
    shares = chosen / chosen.sum(-1, keepdim=True).clamp_min(1e-12)
    entropy = -(shares * shares.clamp_min(1e-12).log()).sum(-1)
    return {
        "attention_mean": float(chosen.mean()),
        "attention_max": float(chosen.amax()),
        "attention_entropy": float(entropy.mean()),
        "attention_sparsity": float((shares < NEAR_ZERO).double().mean()),
    }


@contextmanager
def _telling(language: TransformersLM) -> Iterator[None]:
    """Let a language model compute attention in the plain way, which can be looked at."""
    before = language.hf.config._attn_implementation
    language.hf.set_attn_implementation("eager")
    try:
        yield
    finally:
        language.hf.set_attn_implementation(before)
