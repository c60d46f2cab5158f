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

LOWEST = -1e4
"""A score that adds nothing to a sum of exponentials, and is finite where there is nothing else."""


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

    Contrastive loss: CLIP (arXiv 2103.00020); nested widths: Matryoshka representations (arXiv 2205.13147). A text is
    compared with the mean of an image's tokens, or with the one that it fits best (late interaction: ColBERT,
    arXiv 2004.12832, and FILIP, arXiv 2111.07783).
    """

    def __init__(self, config: AlignedConfig, vocabulary: int) -> None:
        super().__init__()
        self._by_token = config.compared == "tokens"
        self.encoder = ImageEncoder(config.encoder)
        self.text = build(config.text, vocabulary, self.encoder.width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def image_vectors(self, images: Tensor) -> Tensor:
        """Return the vectors (B, V, D) of each image, not normalised: the mean of its tokens alone, or all of these."""
        tokens: Tensor = self.encoder(images)
        return tokens if self._by_token else tokens.mean(1, keepdim=True)

    def text_vectors(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Return a vector (B, D) of each text, not normalised."""
        return self.text(tokens, attended)

    @property
    def inverse_temperature(self) -> Tensor:
        """What cosines are multiplied by."""
        return self.log_scale.clamp(max=COLDEST).exp()

    def nats(self, images: Tensor, texts: Tensor, mine: slice, same: Tensor, widths: Sequence[int]) -> list[Tensor]:
        """Return, for each width, the contrastive nats (b,) of the images that are mine, among all.

        An image has K texts. Each is to be found among all that are not said of the image, and finds any image of
        which it is said (as in MIL-NCE, arXiv 1912.06430). With one text an image, and no equal ones, that is CLIP's.

        Args:
            images: vectors of images (B, V, D).
            texts: vectors of their texts (B x K, D), image by image.
            mine: the b images whose loss is wanted; with several ranks, those of this one.
            same: (B x K,) a number of each text, equal for equal ones.
            widths: how many channels are compared.
        """
        count = len(images)
        of_image = same.view(count, -1)
        said_of = (of_image[:, :, None] == same).any(1)
        found = []
        for width in widths:
            scores = self.inverse_temperature * cosines(images, texts, width)
            right = scores.masked_fill(~said_of, LOWEST).logsumexp(0)
            to_image = (scores.logsumexp(0) - right).view_as(of_image)[mine]
            wrong = scores[mine].masked_fill(said_of[mine], LOWEST).logsumexp(1, keepdim=True)
            own = scores.view(count, *of_image.shape).diagonal().t()[mine]
            to_text = torch.logaddexp(own, wrong) - own
            found.append((to_text + to_image).mean(-1) / 2)
        return found


def cosines(images: Tensor, texts: Tensor, width: int) -> Tensor:
    """Return how well texts fit images (B, T): a text's cosine with the vector of an image that it fits best.

    Args:
        images: (B, V, D), V vectors of each image.
        texts: (T, D).
        width: how many channels are compared, the first.
    """
    seen, said = F.normalize(images[..., :width], dim=-1), F.normalize(texts[:, :width], dim=-1)
    return (seen @ said.t()).amax(1)
