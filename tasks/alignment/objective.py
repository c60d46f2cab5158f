"""What an image encoder is trained towards: that images and what is said of them point the same way."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.alignment import AlignmentRecipe, PretrainedTextConfig
from configs.vision_language import Square
from models.build import build
from models.vision_language.alignment import cap_temperature
from models.vision_language.image_encoder import Aligned
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
        whole, *nested = model.nats(images, texts, mine, same, [images.shape[1], *self._widths()])
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
        images, texts, _ = vectors_of(model, source, share)
        narrow = self.recipe.widths[-1]
        found = recall_at(F.normalize(images, dim=-1), F.normalize(texts, dim=-1))
        few = recall_at(F.normalize(images[:, :narrow], dim=-1), F.normalize(texts[:, :narrow], dim=-1), (1,))
        return {
            **found,
            "text_at_1_narrow": few["text_at_1"],
            "gain": found["text_at_1"] / found["chance_at_1"],
            "image_rank": effective_rank(images),
            "text_rank": effective_rank(texts),
        }

    def release_config(self) -> dict[str, Any]:
        """Return the recipe."""
        return {"recipe": self.recipe.model_dump(mode="json")}


@torch.no_grad()
def vectors_of(model: Aligned, source: AlignedImages, share: Share) -> tuple[Tensor, Tensor, Tensor]:
    """Return vectors of images and of all that is said of them (N, D), and a number of the latter (N,), on the CPU."""
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for batch in ordered_batches(share, source, collate, batch_size=BATCH):
        images = model.image_vectors(batch.images).float()
        each = F.normalize(model.text_vectors(batch.tokens, batch.attended).float(), dim=-1)
        said = torch.zeros_like(images).index_add(0, batch.of_image, each)
        same = torch.zeros_like(batch.same[: len(images)]).index_add(0, batch.of_image, batch.same)
        parts.append((images, said, same))
    images, texts, same = (share.gather(torch.cat(column)).cpu() for column in zip(*parts, strict=True))
    return images, texts, same


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
