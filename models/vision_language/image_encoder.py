"""Images as a few wide tokens of which the first channels alone say much already, aligned with texts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.alignment import AlignedConfig, ImageEncoderConfig
from models.build import build
from models.vision_language.alignment import COLDEST, contrastive


class ImageEncoder(nn.Module):
    """A vision tower, a resampler and a projection.

    Attributes:
        tokens: K, tokens of an image.
        width: D, channels of a token.
    """

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.tower = build(config.tower)
        self.resampler = build(config.resampler, self.tower.width)
        self.projection = nn.Linear(self.resampler.width, config.width)
        self.tokens, self.width = self.resampler.tokens, config.width

    @property
    def side(self) -> int:
        """Height and width of an image in pixels."""
        side: int = self.tower.side
        return side

    def latents(self, images: Tensor) -> Tensor:
        """Return what is projected, (B, K, resampler width), of RGB images (B, 3, side, side), uint8."""
        return self.resampler(self.tower(images))

    def encode_images(self, images: Tensor) -> Tensor:
        """Return tokens (B, K, D) of RGB images (B, 3, side, side), uint8."""
        return self.projection(self.latents(images))

    forward = encode_images


class Aligned(nn.Module):
    """An image encoder and a text tower that share a space, which is nested: its first channels are a space as well.

    Contrastive loss: CLIP (arXiv 2103.00020); nested widths: Matryoshka representations (arXiv 2205.13147).
    """

    def __init__(self, config: AlignedConfig, vocabulary: int) -> None:
        super().__init__()
        self.encoder = ImageEncoder(config.encoder)
        self.text = build(config.text, vocabulary, self.encoder.width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def image_vectors(self, images: Tensor) -> Tensor:
        """Return a vector (B, D) of each image, not normalised."""
        return self.encoder(images).mean(1)

    def text_vectors(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Return a vector (B, D) of each text, not normalised."""
        return self.text(tokens, attended)

    @property
    def inverse_temperature(self) -> Tensor:
        """What cosines are multiplied by."""
        return self.log_scale.clamp(max=COLDEST).exp()

    def nats(self, images: Tensor, texts: Tensor, mine: slice, same: Tensor, widths: Sequence[int]) -> list[Tensor]:
        """Return, for each width, the contrastive nats (b,) of the rows that are mine, among all rows (B, D).

        Args:
            images: vectors of images.
            texts: vectors of their texts.
            mine: the b rows whose loss is wanted; with several ranks, those of this one.
            same: (B,) a number of each text; an image of an equal text is no negative.
            widths: how many channels are compared.
        """
        alike = same[mine, None] == same[None]
        found = []
        for width in widths:
            seen, said = F.normalize(images[:, :width], dim=-1), F.normalize(texts[:, :width], dim=-1)
            to_text, to_image = seen[mine] @ said.t(), said[mine] @ seen.t()
            scale = self.inverse_temperature
            found.append(contrastive(scale * to_text, scale * to_image, alike.to(to_text.dtype)))
        return found
