"""Images as a few wide tokens of which the first channels alone say much already, aligned with texts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.alignment import AlignedConfig, ImageEncoderConfig
from configs.vision_language import Square
from models.build import build
from models.vision_language.alignment import COLDEST


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
    def square(self) -> Square:
        """How an image of any shape becomes one that the tower sees."""
        square: Square = self.tower.square
        return square

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
        """Return, for each width, the contrastive nats (b,) of the images that are mine, among all.

        An image has K texts, and any of them is right (SupCon, arXiv 2004.11362); with one it is the loss of CLIP.

        Args:
            images: vectors of images (B, D).
            texts: vectors of their texts (B x K, D), image by image.
            mine: the b images whose loss is wanted; with several ranks, those of this one.
            same: (B x K,) a number of each text; an image of which an equal text is said is no negative.
            widths: how many channels are compared.
        """
        of_image = same.view(len(images), -1)
        said_of = (of_image[:, :, None] == same).any(1).to(images.dtype)
        each = said_of.view(len(images), *of_image.shape)
        found = []
        for width in widths:
            seen, said = F.normalize(images[:, :width], dim=-1), F.normalize(texts[:, :width], dim=-1)
            scores = self.inverse_temperature * seen @ said.t()
            to_image = cross_entropy(scores.view_as(each)[:, mine], each[:, mine], over=0).mean(-1)
            found.append((cross_entropy(scores[mine], said_of[mine], over=-1) + to_image) / 2)
        return found


def cross_entropy(scores: Tensor, right: Tensor, over: int) -> Tensor:
    """Return the nats of finding any that is right, each as likely, among all along one axis, which goes."""
    return -(right / right.sum(over, keepdim=True) * scores.log_softmax(over)).sum(over)
