"""The data side of `microvlm` and `trm_vlm`: lists of image URLs and texts to verified shards and an index."""

from __future__ import annotations

from typing import Any

from configs.image_text import ImageFolder, ImageTextConfig, ShardFolder
from configs.image_text_sample import SampleScenes
from tasks.image_text.index import image_text_index
from tasks.image_text.report import image_text_report
from tasks.image_text.rows import Whereabouts, image_text_rows
from tasks.image_text.shards import image_text_shards
from tasks.image_text.sources import list_names, reading, source_files
from tasks.samples.scenes import image_text_sample
from tasks.stage import raw_input


def image_text(config: ImageTextConfig) -> Any:
    """Wire the stages; every name below is an asset. Mode `metadata` ends with the lists."""
    return shards_and_index(config, raw_lists(config))[1]


def shards_and_index(config: ImageTextConfig, raw: Any) -> tuple[Any, Any]:
    """Wire the stages after `raw_lists`; return shards and index, or, where nothing is fetched, none and the lists."""
    rows = image_text_rows(
        raw=raw,
        names=list_names(raw, config.source),
        reading=reading(config.source),
        whereabouts=Whereabouts(source=config.source),
        select=config.select,
        questions=config.questions,
        images_per_shard=config.images_per_shard,
    )
    if config.select.mode == "metadata":
        return None, rows
    local = isinstance(config.source, SampleScenes | ImageFolder | ShardFolder)
    shards = image_text_shards(
        rows=rows,
        images=raw if local else None,
        images_per_shard=config.images_per_shard,
        fetching=config.fetching,
        crawling=config.crawling,
        image=config.image,
        retry=config.retry,
    )
    index = image_text_index(shards=shards, duplicates=config.duplicates, splits=config.splits)
    image_text_report(rows=rows, shards=shards, index=index)
    return shards, index


def raw_lists(config: ImageTextConfig) -> Any:
    """Return what the configured source reads: generated scenes, or files on this machine."""
    match config.source:
        case SampleScenes() as source:
            return image_text_sample(source=source)
        case source:
            return raw_input("image_text_lists", source_files(source))
