"""Configuration of the generated image-text data: rendered scenes, the list that names them, and their web site."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from configs.base import Config

SAMPLE_HOST = "pictures.test"
"""The host in the URLs of generated images; while they are fetched, a web site on this machine stands behind it."""


class SampleScenes(Config):
    """Scenes that the pipeline renders itself, listed by URL and fetched from a web site that also misbehaves."""

    kind: Literal["sample"] = "sample"
    seed: int = Field(0, ge=0)
    """Same seed, same bytes."""
    images: int = Field(400, ge=1, le=1_000_000)
    """Number of scenes; more of them leave the earlier ones as they are."""
    layout: Literal["cc12m", "pixmo_cap", "pixmo_qa"] = "cc12m"
    """The shape of the list: a TSV of URL and caption, a parquet file of long captions, or a parquet file with several
    questions and answers per image and the SHA-256 of its bytes."""
    side: int = Field(320, ge=64, le=2048)
    """Longer side of a scene in pixels; the shorter one varies."""
    misbehaving_share: float = Field(0.12, ge=0, lt=1)
    """Share of further URLs that yield no good image: missing, forbidden, slow, cut off, something else, a trap."""
