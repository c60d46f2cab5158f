"""Configuration of the episodic memory of a vision-language model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from configs.base import Config

Solver = Literal["exact", "ben_cohen"]


class MemoryConfig(Config):
    """A Gaussian over a matrix of slots, each as wide as the language model (Larimar, arXiv 2403.11901)."""

    slots: int = Field(512, ge=1, le=4096)
    """K: how many codes an episode can hold exactly."""
    noise: float = Field(0.01, gt=0, le=1)
    """Standard deviation of every channel of a code around what is stored; codes have norms near 1."""
    solver: Solver = "exact"
    """How linear systems are solved: `exact` by Cholesky factors; `ben_cohen` by an iteration of matrix products."""
    ben_cohen_steps: int = Field(15, ge=1, le=60)
    """Steps of `ben_cohen`."""
