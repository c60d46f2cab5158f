"""The `trm_vlm` pipeline: image URLs with questions and answers, e.g. PixMo, to verified shards."""

from __future__ import annotations

from configs.image_text import ImageTextConfig
from flows.image_text import image_text
from flows.pipelines import Pipeline

PIPELINE = Pipeline("trm_vlm", "Image URLs with questions to verified WebDataset shards", ImageTextConfig, image_text)
