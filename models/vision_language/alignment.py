"""A space that images and texts share, and the contrastive losses that shape it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.vision_language import AlignmentConfig

COLDEST = math.log(100.0)
"""Largest log of the inverse temperature (CLIP, arXiv 2103.00020)."""


def cap_temperature(log_scale: nn.Parameter) -> None:
    """Take the log of an inverse temperature that a step has raised above the largest back to that, in place.

    Above it there is no gradient: it would stay there for good.
    """
    with torch.no_grad():
        log_scale.clamp_(max=COLDEST)


class Alignment(nn.Module):
    """Images by their prefix, texts by the language model's embeddings, as unit vectors of one space."""

    def __init__(self, config: AlignmentConfig, width: int) -> None:
        super().__init__()
        self.longest = config.longest
        self.image = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.width))
        self.patch = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.width)) if config.by_words else None
        self.word = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.width))
        self.positions = nn.Parameter(0.02 * torch.randn(config.longest, config.width))
        block = nn.TransformerEncoderLayer(
            config.width, config.heads, 4 * config.width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, config.text_layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def images(self, prefix: Tensor) -> Tensor:
        """Return unit vectors (B, D) of pooled prefix tokens (B, K, width)."""
        return F.normalize(self.image(prefix.mean(1)), dim=-1)

    def words(self, embeddings: Tensor, attended: Tensor) -> Tensor:
        """Return features (B, L', D) of the first tokens of texts: embeddings (B, L, width), attended (B, L)."""
        embeddings, attended = embeddings[:, : self.longest], attended[:, : self.longest]
        x = self.word(embeddings) + self.positions[: embeddings.shape[1]]
        hidden = torch.zeros(attended.shape, dtype=x.dtype, device=x.device).masked_fill(~attended, -math.inf)
        return self.norm(self.blocks(x, src_key_padding_mask=hidden))

    def text_features(self, embeddings: Tensor, attended: Tensor) -> Tensor:
        """Return the mean features (B, D) of texts."""
        weight = attended[:, : self.longest, None].to(embeddings.dtype)
        return (self.words(embeddings, attended) * weight).sum(1) / weight.sum(1).clamp_min(1)

    def texts(self, embeddings: Tensor, attended: Tensor) -> Tensor:
        """Return unit vectors (B, D) of texts."""
        return F.normalize(self.text_features(embeddings, attended), dim=-1)

    @property
    def inverse_temperature(self) -> Tensor:
        """What cosines are multiplied by."""
        return self.log_scale.clamp(max=COLDEST).exp()

    def fine_scores(self, patches: Tensor, words: Tensor, attended: Tensor) -> Tensor:
        """Return how well each text fits each image by its words, (images, texts) (FILIP, arXiv 2111.07783).

        A word's score is its best cosine with a patch, a text's the mean over its words. A pattern that does not
        depend on the image gives a text the same score with every image, and so wins nothing.

        Args:
            patches: (B, N, width) of the adapter.
            words: (B, L, D) of `words`.
            attended: (B, L).
        """
        assert self.patch is not None
        patches = F.normalize(self.patch(patches), dim=-1)
        words = F.normalize(words, dim=-1)
        best = torch.einsum("ind,tld->itln", patches, words).amax(-1)
        weight = attended[:, : words.shape[1]].to(best.dtype)
        return (best * weight).sum(-1) / weight.sum(-1).clamp_min(1)


def contrastive(to_text: Tensor, to_image: Tensor, same: Tensor) -> Tensor:
    """Return the symmetric contrastive loss (b,) of logits, in nats; the mean over all rows is CLIP's.

    Args:
        to_text: (b, B) of some images against all texts.
        to_image: (b, B) of these images' texts against all images.
        same: (b, B) which texts are equal: an image of an equal text is no negative, and all of them are right.
    """
    target = same / same.sum(-1, keepdim=True)
    return -((target * to_text.log_softmax(-1)).sum(-1) + (target * to_image.log_softmax(-1)).sum(-1)) / 2
