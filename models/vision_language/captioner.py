"""Texts about an image, token by token: what an image encoder is asked for beside vectors that match."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.alignment import CaptionerConfig


class Captioner(nn.Module):
    """A causal decoder that reads an image's tokens by cross-attention (CoCa, arXiv 2205.01917).

    To tell texts of some images apart, a vector needs little of what they say. A decoder needs every word of it.
    """

    def __init__(self, config: CaptionerConfig, vocabulary: int, longest: int, width: int) -> None:
        super().__init__()
        hidden = config.hidden
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.start = nn.Parameter(hidden**-0.5 * torch.randn(hidden))
        self.positions = nn.Parameter(0.02 * torch.randn(longest, hidden))
        self.see = nn.Linear(width, hidden)
        block = nn.TransformerDecoderLayer(
            hidden, config.heads, 4 * hidden, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerDecoder(block, config.layers, nn.LayerNorm(hidden))
        self.head = nn.Linear(hidden, vocabulary)
        nn.init.normal_(self.embedding.weight, std=hidden**-0.5)

    def nats(self, seen: Tensor, tokens: Tensor, attended: Tensor) -> Tensor:
        """Return the nats (B,) of the texts of each image, the sum over their tokens.

        The texts of an image stand in one row, hidden from each other, so that its keys and values are made once.

        Args:
            seen: tokens of images (B, K, width).
            tokens: ids of their texts (B x N, L), image by image.
            attended: (B x N, L) bool, no padding; padding follows the text.
        """
        count, (texts, length) = len(seen), tokens.shape
        logits = self.head(self._read(seen, tokens)).flatten(0, -2)
        nats = F.cross_entropy(logits.float(), tokens.flatten(), reduction="none").view(texts, length)
        return (nats * attended).view(count, -1).sum(1)

    def _read(self, seen: Tensor, tokens: Tensor) -> Tensor:
        """Return what is known before each token, (B, N x L, hidden)."""
        count, (texts, length) = len(seen), tokens.shape
        before = torch.cat([self.start.expand(texts, 1, -1), self.embedding(tokens[:, :-1])], 1)
        x = (before + self.positions[:length]).view(count, -1, before.shape[-1])
        place = torch.arange(x.shape[1], device=x.device)
        hidden = (place[:, None] // length != place // length) | (place[:, None] < place)
        found: Tensor = self.blocks(x, self.see(seen), tgt_mask=hidden, tgt_is_causal=False)
        return found
