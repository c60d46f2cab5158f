"""Configuration of the wildfire evaluation: scores, intervals, roll-outs and pictures."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.base import Config


class EvaluationConfig(Config):
    """How trained fire models are judged beside CopyLast and burnable dilation."""

    threshold: Literal["validation"] | Annotated[float, Field(gt=0, lt=1)] = "validation"
    """Probability from which on a pixel counts as burnt: chosen per model by the growth-F1 of validation fires and
    frozen for test (`validation`), or one number for all models. Rounded to a multiple of 1/256."""
    batch_size: int = Field(4, ge=1)
    """Samples per forward pass; only samples of the same fire share a batch, so crops are never padded."""
    rollout_steps: int = Field(3, ge=1, le=24)
    """Longest free roll-out in steps; it starts wherever so many true frames follow."""
    bootstrap_resamples: int = Field(1000, ge=100, le=100_000)
    """Resamples of fires, and of each model's seeds, behind the 95 % intervals."""
    bootstrap_block: int | None = Field(None, ge=1)
    """Side in pixels of the squares of land whose fires are drawn together, for they burn over the same ground;
    absent: each fire is drawn by itself, and intervals speak of further fires in the same places."""
    bootstrap_seed: int = Field(0, ge=0)
    """Seed of the resamples: all models share them, so that differences are paired."""
    calibration_bins: Literal[8, 16, 32, 64] = 16
    """Equal bins of probability in the reliability diagram and in the expected calibration error."""
    size_edges: tuple[Annotated[int, Field(ge=1)], ...] = (150, 1000, 5000)
    """Borders of the fire size classes, in burnt pixels of a fire's last frame."""
    dilation_radii: tuple[Annotated[float, Field(ge=0)], ...] = (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24)
    """Radii in pixels among which the isotropic dilation is tuned on training fires."""
    dilation_radius_per_wind: tuple[float, ...] = (0.0, 0.1, 0.15, 0.2, 0.3, 0.5)
    """Growths of the radius per unit of wind speed, among which the wind-aware dilation is tuned."""
    dilation_shift_per_wind: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
    """Downwind shifts in pixels per unit of wind speed, among which the wind-aware dilation is tuned."""
    tuning_fires: int | None = Field(None, ge=1)
    """Most training fires that the dilations are tuned on, evenly drawn; all when absent."""
    maps: int = Field(4, ge=0, le=24)
    """Test fires of different size whose predictions are drawn."""
    attention_fires: int = Field(24, ge=0)
    """Test fires whose attention over time is averaged; 0 draws none."""
    latency_repeats: int = Field(30, ge=0)
    """Predictions behind the latency table; 0 measures none, and equal inputs then give equal files."""

    @model_validator(mode="after")
    def _order(self) -> Self:
        if any(low >= high for low, high in pairwise(self.size_edges)):
            raise ValueError(f"size_edges {list(self.size_edges)} must grow; write e.g. [150, 1000, 5000]")
        for name in ("dilation_radii", "dilation_radius_per_wind", "dilation_shift_per_wind"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; name at least one value to tune on")
        return self
