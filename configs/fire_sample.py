"""Configuration of the generated raw wildfire archive."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from configs.base import Config


class SampleFires(Config):
    """A raw fire archive that the pipeline generates itself: one landscape, one wind record, and simulated fires."""

    kind: Literal["sample"] = "sample"
    seed: int = Field(0, ge=0)
    """Same seed, same bytes."""
    fires: int = Field(80, ge=1, le=9999)
    """Number of fires; more of them leave the earlier ones as they are."""
    rows: int = Field(400, ge=96, le=2000)
    """Height of the landscape in cells."""
    columns: int = Field(400, ge=96, le=2000)
    """Width of the landscape in cells."""
    cell_metres: float = Field(20.0, ge=5, le=200)
    """Side of a cell in metres; smaller cells make fires larger in pixels."""
    min_frames: int = Field(2, ge=2, le=48)
    """Hourly frames of the shortest fire, the ignition included."""
    max_frames: int = Field(12, ge=2, le=48)
    """Hourly frames of the longest fire; short fires are more frequent."""
    largest_crop: int = Field(128, ge=48, le=512)
    """A fire's crop is at most so many cells high and wide; a fire that would outgrow it starts again elsewhere, and
    ends early where that does not help."""
    outside_share: float = Field(0.15, ge=0, le=0.6)
    """Share of the raster that is sea or beyond the map, where every band is nodata."""
    hole_share: float = Field(0.02, ge=0, le=0.2)
    """Share of the land whose elevation is nodata though it can burn; a quarter as much has no fuel and cannot."""

    @model_validator(mode="after")
    def _frames(self) -> Self:
        if self.max_frames < self.min_frames:
            raise ValueError(f"max_frames ({self.max_frames}) must not be less than min_frames ({self.min_frames})")
        return self
