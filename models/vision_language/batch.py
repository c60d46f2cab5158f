"""What a vision-language model learns from: images with texts, in episodes, with questions about what was seen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Texts:
    """Token ids of texts, padded on the right."""

    tokens: Tensor
    """(B, L) int64"""
    attended: Tensor
    """(B, L) bool: a token, no padding."""
    learned: Tensor
    """(B, L) bool: a token that is foretold; the prompt before it is not."""


def numbers_of(texts: Texts) -> Tensor:
    """Return a number (B,) of each text, int64, equal for equal tokens however far they are padded: a
    polynomial of their tokens modulo 2^64.
    """
    length = texts.tokens.shape[1]
    powers = torch.cumprod(torch.full((length,), 0x9E3779B97F4A7C15 - (1 << 64), device=texts.tokens.device), 0)
    return ((texts.tokens + 1) * texts.attended * powers).sum(1)


@dataclass(frozen=True)
class VlmBatch:
    """Images in episodes of E: B = episodes x E rows, one after another."""

    images: Tensor
    """(B, 3, side, side) uint8"""
    told: Texts
    """Prompt and text of each image (B, L)."""
    prompts: Texts
    """The prompt alone (B, L)."""
    captions: Texts
    """The text alone (B, L)."""
    first: Tensor
    """(episodes,) how many images were seen before those of the episode, and are not in the memory."""
    written: Tensor
    """(episodes, E) bool: the image is in the memory when questions are asked."""
    recalled: Texts
    """(episodes, L): a question about one image of the episode, and that image's text."""
    questions: Texts
    """(3 x episodes, L): these questions, then ones about images that are not in the memory, and then ones about the
    image that is shown, or about none: to the last two the memory has no answer."""
    asked: Tensor
    """(episodes,) the image that the question is about, counted from the first that was ever seen, which is 0."""
    shown: Tensor
    """(episodes,) bool: the last image that was written stands in front of the question."""

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return len(self.written)
