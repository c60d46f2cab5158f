"""Configuration of the `wildfire` pipeline: raw fire archives to trained and judged spread models."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from configs.ablation import Ablation, check_names, with_ablations
from configs.base import Config
from configs.fire_data import Decoding, FireArchive, FireSplits, Tokens
from configs.fire_evaluation import EvaluationConfig
from configs.fire_models import FireModel, LossConfig
from configs.fire_sample import SampleFires
from configs.training import Execution, TrainingConfig, check_groups

Source = Annotated[SampleFires | FireArchive, Field(discriminator="kind")]


class FireInputs(Config):
    """What a model is shown of each sample."""

    history: int = Field(6, ge=1, le=64)
    """Frames, the last one included; 1 shows the last frame only."""
    window_tokens: int | None = Field(None, ge=1)
    """Side of the training windows in tokens, cut around the fire's front; whole crops when absent."""
    augment: bool = True
    """Turn and mirror training samples, with wind and slope, in the eight ways of a square."""
    wind: bool = True
    """Show the wind."""
    static: bool = True
    """Show terrain and fuels."""


class FireRecipe(Config):
    """How one model is trained."""

    model: FireModel
    """Architecture."""
    inputs: FireInputs = FireInputs()
    """What the model is shown."""
    loss: LossConfig = LossConfig()
    """What is minimised."""
    training: TrainingConfig
    """Optimisation."""

    @model_validator(mode="after")
    def _history(self) -> Self:
        longest = self.model.longest_history()
        if longest is not None and self.inputs.history > longest:
            raise ValueError(
                f"inputs.history ({self.inputs.history}) is longer than model.max_history ({longest}), "
                "which would cut it; raise max_history"
            )
        return self

    @model_validator(mode="after")
    def _groups(self) -> Self:
        check_groups(self.training, "temporal", "spatial")
        return self

    def idle(self) -> frozenset[str]:
        """Return the settings of the group `spatial` where nothing comes pretrained: it is empty then."""
        if getattr(getattr(self.model, "decoder", None), "pretrained", None):
            return frozenset()
        return frozenset({"training.learning_rates.spatial", "training.freeze.spatial"})


class Int8Model(Config):
    """A trained model in 8-bit integers, for ONNX Runtime; it is judged beside the one that it was made from."""

    model: str
    """Name of the model, an `emberformer`; one for each of its seeds is made."""
    calibration: int = Field(48, ge=1)
    """Training samples by which the range of every activation is set."""


class WildfireConfig(Config):
    """Raw fire archives to trained and judged spread models."""

    source: Source = SampleFires()
    """Where the raw archive comes from."""
    decoding: Decoding = Decoding()
    """How raw files become masks, bands and wind."""
    tokens: Tokens = Tokens()
    """The token grid."""
    splits: FireSplits = FireSplits()
    """Training, validation and test."""
    models: dict[str, FireRecipe] = Field({})
    """Models to train and compare, by a name of your own; none stops after the data."""
    ablations: dict[str, Ablation] = Field({})
    """Further models, each a variation of one in `models`."""
    quantised: dict[str, Int8Model] = Field({})
    """Models in 8 bits, by a name of your own."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    """Every model is trained once with each seed."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How models are judged."""
    execution: Execution = Execution()
    """How trainings are carried out; changes no result, and no key."""

    @model_validator(mode="after")
    def _resolvable(self) -> Self:
        check_names(self.models, self.ablations, {name: q.model for name, q in self.quantised.items()}, "quantised")
        self.trainings()  # refuses ablations that vary nothing
        return self

    def idle(self) -> frozenset[str]:
        """Return the settings of models that change nothing."""
        return frozenset(f"models.{name}.{path}" for name, recipe in self.models.items() for path in recipe.idle())

    def trainings(self) -> list[tuple[str, int, FireRecipe]]:
        """Return name, seed and recipe of every training, ablations resolved."""
        return with_ablations(self.models, self.ablations, self.seeds)
