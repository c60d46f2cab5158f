"""A frozen vision encoder, a trained adapter and a frozen language model, joined by soft prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.language.interface import LanguageModel
from models.weather.prefixer import Prefixer
from models.weather.sat_swin_mae import SatSwinMAE


@dataclass(frozen=True)
class NarrationBatch:
    """Windows with the texts about them."""

    data: Tensor
    """float32 (B, C, T, H, W), normalised, 0 where missing."""
    time: Tensor
    """int64 (B,), seconds since 1970 in UTC of the anchor step."""
    latitude: Tensor
    """float32 (B, H), degrees."""
    longitude: Tensor
    """float32 (B, W), degrees."""
    tokens: Tensor
    """int64 (B, L): the prompt, then the caption and its end, then padding."""
    attended: Tensor
    """bool (B, L), false where padding."""
    learned: Tensor
    """bool (B, L), true for the tokens of the caption, those that count in the loss; never for the first token."""
    sample: Tensor
    """int64 (B,), position in the data set."""

    def __len__(self) -> int:
        return len(self.data)


class Narrator(nn.Module):
    """P(text | window) = LM([adapter(encoder(window)) | text]).

    The encoder never trains and stays in evaluation mode; so does whatever of the language model is frozen.
    Without `vision` the fields of every window are 0, and all that is known of it is its place and time.
    """

    def __init__(self, encoder: SatSwinMAE, adapter: Prefixer, language: LanguageModel, vision: bool = True) -> None:
        super().__init__()
        self.encoder, self.adapter, self.language, self.vision = encoder, adapter, language, vision
        self.encoder.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the adapter and of what trains in the language model."""
        self.training = mode
        self.encoder.train(False)
        self.adapter.train(mode)
        self.language.train(mode)
        return self

    def soft_prompts(self, batch: NarrationBatch) -> Tensor:
        """Return (B, M, dH)."""
        data = batch.data if self.vision else torch.zeros_like(batch.data)
        with torch.no_grad():
            tokens = self.encoder.encode_tokens(
                data, time=batch.time, latitude=batch.latitude, longitude=batch.longitude
            )
        return self.adapter(tokens)

    def forward(self, batch: NarrationBatch) -> Tensor:
        """Return the negative log-likelihood of each caption, in nats, (B,)."""
        return self.caption_nll(batch, self.soft_prompts(batch))

    def caption_nll(self, batch: NarrationBatch, prompts: Tensor | None) -> Tensor:
        """Return the sum over each caption's tokens of -log p in nats, (B,); without vision where prompts is None."""
        logits = self.caption_logits(batch, prompts)
        labels = batch.tokens[:, 1:].masked_fill(~batch.learned[:, 1:], -100)
        nll = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none")
        return nll.view(labels.shape).sum(1)

    def caption_logits(self, batch: NarrationBatch, prompts: Tensor | None) -> Tensor:
        """Return the logits of every token but the first, (B, L - 1, vocabulary)."""
        embedded, attended, ahead = self.language.embed_tokens(batch.tokens), batch.attended, 0
        if prompts is not None:
            ahead = prompts.shape[1]
            embedded = torch.cat([prompts.to(embedded.dtype), embedded], 1)
            attended = torch.cat([attended.new_ones(len(batch), ahead), attended], 1)
        return self.language(embedded, attended)[:, ahead:-1]  # those at a place are of the next token

    @torch.no_grad()
    def write(
        self, batch: NarrationBatch, prompts: Tensor, *, max_new_tokens: int, temperature: float, top_p: float,
        end: int, generator: torch.Generator | None = None,
    ) -> list[list[int]]:  # fmt: skip
        """Return the token ids of a text for each window, after the prompt that the batch's tokens begin with.

        Only the tokens before the caption are read.
        """
        heads = [tokens[seen & ~learned] for tokens, seen, learned in
                 zip(batch.tokens, batch.attended, batch.learned, strict=True)]  # fmt: skip
        longest = max(map(len, heads))
        width = prompts.shape[1] + longest
        embedded = prompts.new_zeros(len(heads), width, prompts.shape[2])
        attended = torch.zeros(len(heads), width, dtype=torch.bool, device=prompts.device)
        for row, head in enumerate(heads):
            sequence = torch.cat([prompts[row], self.language.embed_tokens(head).to(prompts.dtype)])
            embedded[row, width - len(sequence) :] = sequence
            attended[row, width - len(sequence) :] = True
        return self.language.generate(
            embedded, attended, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p,
            end=end, generator=generator,
        )  # fmt: skip
