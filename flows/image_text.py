"""The data side of `microvlm` and `trm_vlm`: lists of image URLs and texts to verified shards and an index."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from configs.image_text import ImageFolder, ImageTextConfig, ShardFolder
from configs.image_text_sample import SampleScenes
from tasks.image_text.index import image_text_index
from tasks.image_text.report import image_text_report
from tasks.image_text.rows import Whereabouts, image_text_rows
from tasks.image_text.shards import image_text_shards
from tasks.image_text.sources import list_names, reading, source_files
from tasks.samples.scenes import image_text_sample
from tasks.stage import raw_input, side_by_side


def with_shards(config: ImageTextConfig, raw: Any, go_on: Callable[[Any, Any], Any]) -> Any:
    """Wire the stages after `raw_lists`, and go on with shards and index while they are reported on.

    Where nothing is fetched, mode `metadata`, the lists are returned.
    """
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
        return rows
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
    report = partial(image_text_report, rows=rows, shards=shards, index=index)
    return side_by_side([report, partial(go_on, shards, index)], 2)[1]


def raw_lists(config: ImageTextConfig) -> Any:
    """Return what the configured source reads: generated scenes, or files on this machine."""
    match config.source:
        case SampleScenes() as source:
            return image_text_sample(source=source)
        case source:
            return raw_input("image_text_lists", source_files(source))
