"""Released fire models: what is written beside the weights, and how a model is used again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from torch import Tensor, nn

from configs.fire_data import Decoding
from configs.wildfire import FireInputs, FireRecipe
from models.fire.batch import FireBatch, FireSpec
from models.fire.build import build_fire_model
from storage.fire_split import Part, Statistics
from storage.token_cache import TokenCache
from tasks.fire.dataset import FireDataset
from tasks.training.release import Release


@lru_cache(maxsize=8)
def open_part(
    cache: Path, split: Path | Statistics, part: Part | Literal["all"], inputs: FireInputs, *, training: bool = False
) -> FireDataset:
    """Return the samples of a part as a model is shown them; windows and turns are for training alone."""
    return FireDataset(
        cache,
        split,
        part,
        history=inputs.history,
        window_tokens=inputs.window_tokens if training else None,
        augment=inputs.augment and training,
        wind=inputs.wind,
        static=inputs.static,
    )


def release_config(recipe: FireRecipe, samples: FireDataset) -> dict[str, Any]:
    """Return what a model needs, as JSON, to be built and fed again: recipe, shape and statistics of the data."""
    return {
        "recipe": recipe.model_dump(mode="json"),
        "spec": asdict(samples.spec),
        "statistics": samples.statistics.model_dump(mode="json"),
        "decoding": samples.cache.attributes["decoding"],
    }


@dataclass(frozen=True)
class FireRelease(Release):
    """A trained fire model, with the statistics and the decoding of its data and the threshold of its masks."""

    network: nn.Module
    recipe: FireRecipe
    spec: FireSpec
    statistics: Statistics
    decoding: Decoding
    threshold: float
    """The one with the best growth-F1 on validation fires."""

    @classmethod
    def restore(cls, model: Mapping[str, Any], weights: Mapping[str, Any], folder: Path) -> Self:
        """Return the release that `release_config` describes; nothing is asked of a hub."""
        recipe, spec = FireRecipe.model_validate(model["recipe"]), _spec(model["spec"])
        return cls(
            build_fire_model(recipe.model, spec),
            recipe,
            spec,
            Statistics.model_validate(model["statistics"]),
            Decoding.model_validate(model["decoding"]),
            weights["metrics"]["threshold"],
        )

    def predict(self, batch: FireBatch) -> Tensor:
        """Return the probability of being burnt in the next frame, (B, H, W)."""
        probability: Tensor = self.network(batch).logits.sigmoid()
        return probability

    def samples(self, cache: Path) -> FireDataset:
        """Return all samples of a token cache, as the model was shown them in training; whole crops.

        Raises:
            ValueError: the cache has other bands, another patch or another decoding than the model was trained on.
        """
        tokens = TokenCache.open(cache)
        theirs = [*tokens.continuous, *(name for name, _ in tokens.categorical)]
        ours = [*(band.name for band in self.statistics.bands), *(band.name for band in self.statistics.classes)]
        if theirs != ours:
            raise ValueError(
                f"the archive has the bands {', '.join(theirs)}, but the model was trained on {', '.join(ours)}; "
                "give an archive with the same bands"
            )
        if tokens.patch != self.spec.patch:
            raise ValueError(
                f"the tokens are {tokens.patch} pixels wide, but the model was trained on {self.spec.patch}; give the "
                "archive itself, which is then cut as the model needs it"
            )
        if Decoding.model_validate(tokens.attributes["decoding"]) != self.decoding:
            raise ValueError(
                "the token cache was decoded in another way than the model's own; give the archive itself, which is "
                "then decoded as the model needs it"
            )
        return open_part(cache, self.statistics, "all", self.recipe.inputs)


def _spec(values: Mapping[str, Any]) -> FireSpec:
    return FireSpec(
        patch=values["patch"],
        continuous=tuple(values["continuous"]),
        categorical=tuple((name, count) for name, count in values["categorical"]),
        static=values["static"],
        cell_metres=values["cell_metres"],
        wind_scale=tuple(values["wind_scale"]),
    )
