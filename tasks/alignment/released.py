"""Released image encoders with the text tower that they were aligned with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from configs.alignment import AlignmentRecipe
from models.build import build
from models.vision_language.image_encoder import Aligned
from tasks.alignment.samples import TextIds
from tasks.text.tokens import FOLDER
from tasks.training.release import Release


@dataclass(frozen=True)
class AlignedRelease(Release):
    """An image encoder, a text tower and its tokenizer."""

    network: Aligned
    ids: TextIds
    recipe: AlignmentRecipe

    @classmethod
    def restore(cls, model: Mapping[str, Any], weights: Mapping[str, Any], folder: Path) -> Self:
        """Return the release that an alignment's config describes; its tokenizer lies beside the weights."""
        recipe = AlignmentRecipe.model_validate(model["recipe"])
        ids = TextIds(recipe.tokenizer_source or str(folder / FOLDER), recipe.model.text.longest)
        network: Aligned = build(recipe.model, len(ids))
        return cls(network, ids, recipe)


@torch.no_grad()
def latents_of(network: Aligned, images: Tensor) -> Tensor:
    """Return what decoders see of images (B, 3, side, side), uint8: (B, K, width), float16, before the projection."""
    return network.encoder.latents(images).half()
