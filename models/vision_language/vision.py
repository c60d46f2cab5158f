"""The vision tower: a transformer over the patches of an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel

from configs.vision_language import VitConfig, VitSizes
from models.pretrained import load_pretrained


class Vit(nn.Module):
    """A ViT, random or pretrained; DeiT-Tiny is one.

    Attributes:
        side: height and width of an image in pixels.
        width: channels of a token.
        patches: tokens besides that of the class.
    """

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.hf: Any
        self.mean: Tensor
        self.scale: Tensor
        if config.pretrained:
            self.hf = load_pretrained(ViTModel, config.pretrained, needed=("embeddings", "encoder", "layernorm"))
            self.hf.pooler = None
        else:
            self.hf = ViTModel(_settings(config.sizes or VitSizes()), add_pooling_layer=False)
        found = self.hf.config
        self.side, self.width = found.image_size, found.hidden_size
        self.patches = (found.image_size // found.patch_size) ** 2
        self.register_buffer("mean", 255 * torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", 1 / (255 * torch.tensor(config.std).view(3, 1, 1)), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return tokens (B, 1 + patches, width) of RGB images (B, 3, side, side), uint8; the first is the class's."""
        pixels = (images.float() - self.mean) * self.scale
        return self.hf(pixel_values=pixels).last_hidden_state


def _settings(sizes: VitSizes) -> ViTConfig:
    return ViTConfig(
        image_size=sizes.side,
        patch_size=sizes.patch,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.intermediate,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
