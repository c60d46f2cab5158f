"""Vision towers: transformers over the patches of an image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedModel, ViTConfig, ViTModel

from configs.vision_language import ClipVisionConfig, Square, VitConfig, VitSizes
from models.pretrained import load_pretrained


class Tower(nn.Module):
    """A transformer over patches, random or pretrained.

    Attributes:
        side: height and width of an image in pixels.
        square: how an image of any shape becomes one of these.
        width: channels of a token.
        patches: tokens besides that of the class.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, hf: PreTrainedModel, config: VitConfig | ClipVisionConfig) -> None:
        super().__init__()
        sizes = config.sizes or VitSizes()
        self.stem = Stem(sizes.stem)
        self.hf: Any = hf
        found: Any = hf.config
        self.side, self.width = found.image_size * sizes.shrunk, found.hidden_size
        self.square = Square(self.side, config.fit)
        self.patches = (found.image_size // found.patch_size) ** 2
        self.register_buffer("mean", 255 * torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", 1 / (255 * torch.tensor(config.std).view(3, 1, 1)), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return tokens (B, 1 + patches, width) of RGB images (B, 3, side, side), uint8; the first is the class's."""
        pixels = (images.float() - self.mean) * self.scale
        return self.hf(pixel_values=self.stem(pixels)).last_hidden_state


class Stem(nn.Sequential):
    """Convolutions that halve height and width, each normalised over its channels and pixels (arXiv 2106.14881)."""

    def __init__(self, channels: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise([3, *channels]):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(1, after), nn.GELU()]
        super().__init__(*layers)


class Vit(Tower):
    """A ViT; DeiT-Tiny is one."""

    def __init__(self, config: VitConfig) -> None:
        if config.pretrained:
            hf = load_pretrained(ViTModel, config.pretrained, needed=("embeddings", "encoder", "layernorm"))
            hf.pooler = None
        else:
            settings = ViTConfig(
                **_settings(config.sizes or VitSizes()), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
            )
            hf = ViTModel(settings, add_pooling_layer=False)
        super().__init__(hf, config)


class ClipVision(Tower):
    """The image side of CLIP. The norm behind its last layer is for the token of the class alone, as published."""

    def __init__(self, config: ClipVisionConfig) -> None:
        if config.pretrained:
            hf: Any = load_pretrained(CLIPVisionModel, config.pretrained, needed=("",), within="clip")
        else:
            hf = CLIPVisionModel(CLIPVisionConfig(**_settings(config.sizes or CLIP_LARGE)))
        hf.post_layernorm = nn.Identity()  # so that no parameter stays without gradient
        super().__init__(hf, config)


def _settings(sizes: VitSizes) -> dict[str, Any]:
    return {
        "image_size": sizes.side // sizes.shrunk,
        "patch_size": sizes.patch // sizes.shrunk,
        "num_channels": sizes.stem[-1] if sizes.stem else 3,
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.intermediate,
    }


CLIP_LARGE = VitSizes(side=336, patch=14, hidden=1024, layers=24, heads=16, intermediate=4096)
"""ViT-L/14 at 336 pixels."""
