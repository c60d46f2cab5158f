"""What an image encoder is trained towards: that images and what is said of them point the same way."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.alignment import AlignmentRecipe, PretrainedTextConfig
from configs.vision_language import Square
from models.build import build
from models.vision_language.alignment import cap_temperature
from models.vision_language.image_encoder import Aligned, cosines
from tasks.alignment.released import AlignedRelease
from tasks.alignment.samples import AlignedBatch, AlignedImages, AlignedSample, TextIds, collate
from tasks.retrieval import recall_at
from tasks.training.loader import Weigher, ordered_batches
from tasks.training.objective import Objective
from tasks.training.share import Share, gather_with_gradient

BATCH = 64
"""Images of one forward pass of an evaluation."""
CHECKED_AFTER, CHECKED_OVER, FLAT = 200, 20, 0.96
"""Steps after which the loss is looked at, the last steps it is averaged over, and the share of chance that is flat."""


class AlignmentObjective(Objective):
    """Images against texts, configured by folders (`shards`, `index`), `tokenizer` and `recipe`."""

    RELEASE = AlignedRelease

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._shards, self._index = Path(config["shards"]), Path(config["index"])
        self.recipe = AlignmentRecipe.model_validate(config["recipe"])
        self._ids = TextIds(config["tokenizer"], self.recipe.model.text.longest)
        self.coefficients = self.recipe.weights.model_dump()
        self._square: Square
        self._recent: deque[float] = deque(maxlen=CHECKED_OVER)

    def build(self) -> nn.Module:
        """Return the model; a tower or text encoder that is not trained is frozen."""
        model: Aligned = build(self.recipe.model, len(self._ids))
        model.encoder.tower.requires_grad_(self.recipe.train_tower)
        self._square = model.encoder.square
        return model

    def groups(self, model: nn.Module) -> dict[str, list[nn.Parameter]]:
        """Return what is trained: resampler with projection and temperature, text tower, vision tower."""
        assert isinstance(model, Aligned)
        encoder = model.encoder
        found = {
            "resampler": [*encoder.resampler.parameters(), *encoder.projection.parameters(), model.log_scale],
            "text": [p for p in model.text.parameters() if p.requires_grad],
        }
        return found | ({"tower": list(encoder.tower.parameters())} if self.recipe.train_tower else {})

    def stored(self, name: str) -> bool:
        """Say whether an entry is trained; a frozen encoder is where it was."""
        text = self.recipe.model.text
        if isinstance(text, PretrainedTextConfig) and not text.train and name.startswith("text.hf."):
            return False
        return self.recipe.train_tower or not name.startswith("encoder.tower.")

    def source(self, part: str) -> AlignedImages:
        """Return the images of a part."""
        few = {"texts": self.recipe.texts_per_image} if part == "train" else {"most": self.recipe.validation_samples}
        return AlignedImages(self._shards, self._index, part, self._square, self._ids, **few)

    @staticmethod
    def collate(samples: Sequence[AlignedSample]) -> AlignedBatch:
        """Stack images and pad texts."""
        return collate(samples)

    def weigher(self) -> Weigher:
        """Return the function that counts images."""
        return count_images

    def losses(self, model: nn.Module, batch: AlignedBatch) -> dict[str, Tensor]:
        """Return the nats of this rank's images and texts, among those of all ranks."""
        assert isinstance(model, Aligned)
        cap_temperature(model.log_scale)
        images, mine = gather_with_gradient(model.image_vectors(batch.images).float())
        texts, _ = gather_with_gradient(model.text_vectors(batch.tokens, batch.attended).float())
        same, _ = gather_with_gradient(batch.same)
        whole, *nested = model.nats(images, texts, mine, same, [images.shape[-1], *self._widths()])
        return {"whole": whole.sum(), "nested": torch.stack(nested).mean(0).sum()}

    def _widths(self) -> Sequence[int]:
        """Return the widths that this step looks at; all ranks draw the same."""
        widths = self.recipe.widths
        return widths if self.recipe.nesting == "all" else [widths[self.moment.step % len(widths)]]

    def remark(self, step: int, means: Mapping[str, float]) -> str:
        """Say when the loss stands where equal vectors would put it."""
        self._recent.append(means["whole"])
        training = self.recipe.training
        mean = sum(self._recent) / len(self._recent)
        images = training.batch_size / training.accumulation
        chance = (math.log(images) + math.log1p((images - 1) * self.recipe.texts_per_image)) / 2
        if step != CHECKED_AFTER or mean <= FLAT * chance:
            return ""
        return (
            f"the loss is {mean:.2f} after {CHECKED_AFTER} steps, and {chance:.2f} is what equal vectors give: "
            "the embeddings have collapsed, or learn nothing; see image_rank, raise learning_rates.resampler, or warm "
            "up longer"
        )

    def evaluate(self, model: nn.Module, share: Share) -> dict[str, float]:
        """Return recall of texts by images and back, with all channels and with the fewest, and how many directions
        the vectors use.
        """
        assert isinstance(model, Aligned)
        source = self.source("validation")
        if len(source) < 2:
            raise ValueError("the validation split has fewer than 2 images; raise splits.validation_share")
        seen = shown_and_told(model, source, share)
        found = recall_at(seen.scores(seen.images.shape[-1]))
        few = recall_at(seen.scores(self.recipe.widths[-1]), (1,))
        return {
            **found,
            "text_at_1_narrow": few["text_at_1"],
            "gain": found["text_at_1"] / found["chance_at_1"],
            **seen.ranks(),
        }

    def release_config(self) -> dict[str, Any]:
        """Return the recipe."""
        return {"recipe": self.recipe.model_dump(mode="json")}


@dataclass(frozen=True)
class ShownAndTold:
    """What a model makes of N images and of the T texts about them."""

    images: Tensor
    """(N, V, D), the V vectors of each image"""
    texts: Tensor
    """(T, D)"""
    of_image: Tensor
    """(T,) the image that a text is about"""
    same: Tensor
    """(N,) a number of all that is said of an image"""

    def scores(self, width: int) -> Tensor:
        """Return how well all that is said of an image fits an image (N, N), by the first `width` channels.

        With one vector of an image it is the cosine with the mean of the unit vectors of the texts; with several, each
        text's cosine with the one that it fits best, the mean over the texts.
        """
        if self.images.shape[1] == 1:
            length = self._of_texts(F.normalize(self.texts[:, :width], dim=-1).t()).norm(dim=0)
        else:
            length = torch.bincount(self.of_image, minlength=len(self.images))
        rows = [self._of_texts(cosines(some, self.texts, width)) / length for some in self.images.split(BATCH)]
        return torch.cat(rows)

    def ranks(self) -> dict[str, float]:
        """Return how many directions the vectors of images use, and those of texts."""
        told = self._of_texts(F.normalize(self.texts, dim=-1).t()).t()
        return {"image_rank": effective_rank(self.images.mean(1)), "text_rank": effective_rank(told)}

    def _of_texts(self, values: Tensor) -> Tensor:
        """Sum values (R, T) of texts over those of each image, (R, N)."""
        return values.new_zeros(len(values), len(self.images)).index_add(1, self.of_image, values)


@torch.no_grad()
def shown_and_told(model: Aligned, source: AlignedImages, share: Share) -> ShownAndTold:
    """Return the vectors of all images and texts of a source, on the CPU."""
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for batch in ordered_batches(share, source, collate, batch_size=BATCH):
        images = model.image_vectors(batch.images).float()
        texts = model.text_vectors(batch.tokens, batch.attended).float()
        same = torch.zeros_like(batch.same[: len(images)]).index_add(0, batch.of_image, batch.same)
        parts.append((images, texts, torch.bincount(batch.of_image, minlength=len(images)), same))
    images, texts, counts, same = (share.gather(torch.cat(column)).cpu() for column in zip(*parts, strict=True))
    return ShownAndTold(images, texts, torch.arange(len(images)).repeat_interleave(counts), same)


def effective_rank(vectors: Tensor) -> float:
    """Return how many directions vectors (N, D) use: exp of the entropy of their singular values' shares.

    Of equal vectors it is 1, whatever they are (Roy and Vetterli 2007, of the unit vectors as they are).
    """
    values = torch.linalg.svdvals(F.normalize(vectors.double(), dim=-1))
    shares = values / values.sum()
    return float((-(shares * shares.clamp_min(1e-30).log()).sum()).exp())


def count_images(batch: AlignedBatch) -> dict[str, float]:
    """Return the number of images for both terms."""
    return {"whole": float(len(batch.images)), "nested": float(len(batch.images))}
