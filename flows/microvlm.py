"""The `microvlm` pipeline: image URLs with captions, e.g. CC12M, to verified shards."""

from __future__ import annotations

from configs.image_text import ImageTextConfig
from flows.image_text import image_text
from flows.pipelines import Pipeline

PIPELINE = Pipeline("microvlm", "Image URLs with captions to verified WebDataset shards", ImageTextConfig, image_text)
