"""Variations of a recipe: a few settings changed, everything else as in the original."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from configs.base import Config
from configs.load import apply_override, describe

Recipe = TypeVar("Recipe", bound=Config)


class Ablation(Config):
    """A recipe that differs from another in a few settings."""

    of: str
    """Name of the recipe that is varied."""
    set: dict[str, Any] = Field(min_length=1)
    """Settings that differ, by their path in the recipe, e.g. `inputs.wind: false`."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(None, min_length=1)
    """Seeds of this variation; those of all recipes when absent."""


def check_names(
    recipes: Mapping[str, Any], ablations: Mapping[str, Ablation], derived: Mapping[str, str], field: str
) -> None:
    """Refuse names that are used twice, or that make no file name; `derived` are models in fewer bits, in `field`, with
    the names of those that they are made of.
    """
    if clash := recipes.keys() & ablations.keys():
        raise ValueError(f"{', '.join(sorted(clash))} names both a model and an ablation; rename one")
    names = [*recipes, *ablations]
    for name, of in derived.items():
        if name in names or of not in names:
            known = ", ".join(sorted(names)) or "none"
            raise ValueError(f"{field}.{name} must have a name of its own, and name one of the models: {known}")
    for name in [*names, *derived]:
        if not name.replace("_", "").replace("-", "").isalnum():
            raise ValueError(f"the model name {name!r} may hold letters, digits, - and _ only")


def refuse_taken(names: Iterable[str], taken: Iterable[str], field: str) -> None:
    """Refuse names under which a report would be given something else."""
    if clash := set(names) & set(taken):
        raise ValueError(f"{field}: {', '.join(sorted(clash))} names something else in reports; choose another name")


def with_ablations(
    recipes: Mapping[str, Recipe], ablations: Mapping[str, Ablation], seeds: tuple[int, ...]
) -> list[tuple[str, int, Recipe]]:
    """Return name, seed and recipe of every training, ablations resolved."""
    runs = [(name, seed, recipe) for name, recipe in recipes.items() for seed in seeds]
    for name, ablation in ablations.items():
        recipe = _vary(name, ablation, recipes)
        runs += [(name, seed, recipe) for seed in ablation.seeds or seeds]
    for name, _, recipe in runs:
        training = getattr(recipe, "training", None)
        if training and training.seed:
            raise ValueError(f"{name}: seeds takes the place of training.seed; write {training.seed} there instead")
    return runs


def _vary(name: str, ablation: Ablation, recipes: Mapping[str, Recipe]) -> Recipe:
    if ablation.of not in recipes:
        raise ValueError(f"ablation {name} varies {ablation.of!r}, but there is only {', '.join(recipes) or 'none'}")
    original = recipes[ablation.of]
    values = original.model_dump(mode="json")
    try:
        for path, value in ablation.set.items():
            apply_override(values, path, value)
        varied = type(original).model_validate(values)
    except ValidationError as error:
        raise ValueError(f"ablation {name}: {describe(error, values)}") from None
    except ValueError as error:
        raise ValueError(f"ablation {name}: {error}") from None
    if varied == original:
        raise ValueError(f"ablation {name} sets what {ablation.of} has already, so it varies nothing")
    return varied
