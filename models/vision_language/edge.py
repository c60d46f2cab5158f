"""What an engine without torch computes of a vision-language model beside its decoder and its memory's Gaussian."""

from __future__ import annotations

from torch import Tensor, nn

from models.vision_language.microvlm import MicroVLM


class EdgeVision(nn.Module):
    """From an image to its prefix, and to what of it is written into the memory."""

    def __init__(self, model: MicroVLM) -> None:
        super().__init__()
        self.vision, self.adapter, self.recall = model.vision, model.adapter, model.recall

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the prefix (B, K, width) and the contents (B, width) of images (B, 3, side, side), uint8."""
        pooled = self.adapter.pool(self.adapter.patches(self.vision(images)))
        return self.adapter.scale * pooled, self.recall.contents(pooled)


class EdgeQuestion(nn.Module):
    """From a question to the cue for the memory."""

    def __init__(self, model: MicroVLM) -> None:
        super().__init__()
        self.alignment, self.recall = model.alignment, model.recall

    def forward(self, embeddings: Tensor, attended: Tensor, now: Tensor) -> Tensor:
        """Return queries (B, width) of questions with token embeddings (B, L, width) where attended (B, L).

        They are asked while the image `now` (B,) is looked at, or would be the next.
        """
        return self.recall.cues(self.alignment.text_features(embeddings, attended), now)


class EdgeAnswer(nn.Module):
    """From what a cue brings back to tokens for the decoder."""

    def __init__(self, model: MicroVLM) -> None:
        super().__init__()
        self.recall = model.recall

    def forward(self, query: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (B, vectors, width), weighed by the gate, and the gate's logit (B,), of (B, width) each."""
        scope = self.recall.scope(query, content)
        return self.recall.prefix(content) * scope.sigmoid()[:, None, None], scope
