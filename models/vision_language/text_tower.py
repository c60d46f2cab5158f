"""Texts as vectors: a small transformer that starts at random, or a pretrained encoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, CLIPTextModel

from configs.alignment import PretrainedTextConfig, SmallTextConfig
from models.pretrained import load_pretrained


def masked_mean(tokens: Tensor, attended: Tensor) -> Tensor:
    """Return the mean (B, d) over what is attended (B, L) of tokens (B, L, d)."""
    weight = attended[..., None].to(tokens.dtype)
    return (tokens * weight).sum(1) / weight.sum(1).clamp_min(1)


class SmallText(nn.Module):
    """Token embeddings with positions, transformer blocks, the mean over the text, a linear map."""

    def __init__(self, config: SmallTextConfig, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, config.hidden)
        self.positions = nn.Parameter(0.02 * torch.randn(config.longest, config.hidden))
        block = nn.TransformerEncoderLayer(
            config.hidden, config.heads, 4 * config.hidden, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.hidden)
        self.project = nn.Linear(config.hidden, width)
        nn.init.normal_(self.embedding.weight, std=config.hidden**-0.5)

    def forward(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Return (B, width) of token ids (B, L)."""
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        hidden = torch.zeros(attended.shape, dtype=x.dtype, device=x.device).masked_fill(~attended, -torch.inf)
        return self.project(masked_mean(self.norm(self.blocks(x, src_key_padding_mask=hidden)), attended))


class PretrainedText(nn.Module):
    """An encoder of transformers, frozen unless its config says otherwise; the mean over the text, a linear map."""

    def __init__(self, config: PretrainedTextConfig, vocabulary: int, width: int) -> None:
        super().__init__()
        self.trained = config.train
        self.hf: Any = _encoder(config.pretrained).requires_grad_(config.train)
        self.project = nn.Linear(self.hf.config.hidden_size, width)

    def train(self, mode: bool = True) -> PretrainedText:
        """Put the module into training mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        self.hf.train(mode and self.trained)
        return self

    def forward(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Return (B, width) of token ids (B, L)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trained):
            found = self.hf(input_ids=tokens, attention_mask=attended.long()).last_hidden_state
        return self.project(masked_mean(found, attended))


def _encoder(source: str) -> Any:
    try:
        kind = AutoConfig.from_pretrained(source).model_type
        if kind in ("clip", "clip_text_model"):
            return load_pretrained(CLIPTextModel, source, needed=("",), within="clip")
        model: Any = AutoModel.from_pretrained(source, dtype=torch.float32)
    except OSError as error:
        raise ValueError(
            f"text encoder {source} cannot be loaded; name a folder written by save_pretrained, or a hub id that is "
            "cached or can be reached"
        ) from error
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # its weights would never get gradient
    return model
