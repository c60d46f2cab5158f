"""Released image encoders with the text tower that they were aligned with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from configs.alignment import AlignmentRecipe, PretrainedTextConfig
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
        ids = TextIds(tokenizer_source(recipe, folder), recipe.model.text.longest)
        network: Aligned = build(recipe.model, len(ids))
        return cls(network, ids, recipe)


def tokenizer_source(recipe: AlignmentRecipe, folder: Path) -> str:
    """Return the hub id or folder of the tokenizer of texts; one that was trained lies in the model's folder."""
    text = recipe.model.text
    return text.pretrained if isinstance(text, PretrainedTextConfig) else str(folder / FOLDER)


@torch.no_grad()
def latents_of(network: Aligned, images: Tensor) -> Tensor:
    """Return what decoders see of images (B, 3, side, side), uint8: (B, K, width), float16, before the projection."""
    return network.encoder.latents(images).half()
