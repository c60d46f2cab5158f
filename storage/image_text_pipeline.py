"""Image-text shards as a `webdataset.WebDataset` pipeline, for trainings that are written for one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from storage.manifest import MANIFEST
from storage.shard_index import LocalBytes, SplitIndex

if TYPE_CHECKING:
    from webdataset import WebDataset

HEADER = 512


def web_dataset(
    shards: Path | str, index_folder: Path | str | None = None, split: str | None = None, **options: Any
) -> WebDataset:
    """Return the samples of a shard asset as webdataset reads them: `jpg`, `json` and `txt` as bytes.

    `shards` is the asset's folder. With an index and a split, samples of other splits and duplicates are left out.
    `options` go to `webdataset.WebDataset`; without any, tars come in their order. Nothing is decoded: chain
    `.decode("pilrgb")`, `.shuffle(1000)` or what else the library offers.
    """
    from webdataset import WebDataset

    if (index_folder is None) != (split is None):
        raise ValueError("index_folder and split belong together; give both, or none for all stored images")
    folder = Path(shards).absolute()
    pipeline = WebDataset(_tars(folder), **{"shardshuffle": False} | options)
    if index_folder is None or split is None:
        return pipeline
    keys = _keys(folder, SplitIndex(Path(index_folder), split))
    return pipeline.select(_InSplit(keys))


class _InSplit:
    """Whether a sample is one of a split; goes to loader processes."""

    def __init__(self, keys: frozenset[str]) -> None:
        self._keys = keys

    def __call__(self, sample: Mapping[str, Any]) -> bool:
        return sample["__key__"] in self._keys


def _tars(folder: Path) -> list[str]:
    """Return the tars of a shard asset, by its manifest."""
    try:
        files = json.loads((folder / MANIFEST).read_bytes())["files"]
    except FileNotFoundError:
        raise ValueError(
            f"{folder} is no asset; give the folder of image_text_shards that `millrace show` prints"
        ) from None
    tars = sorted(str(folder / file["path"]) for file in files if file["path"].endswith(".tar"))
    if not tars:
        raise ValueError(f"{folder} holds no tars; give the folder of image_text_shards")
    return tars


def _keys(folder: Path, index: SplitIndex) -> frozenset[str]:
    """Return the keys of a split's images, as the tars' own headers give them."""
    source = LocalBytes(folder)
    index.check_sizes(source)
    return frozenset(_key_list(source, index))


def _key_list(source: LocalBytes, index: SplitIndex) -> Iterator[str]:
    for shard, offset in np.unique(index.entries[["shard", "jpg_offset"]]).tolist():
        header = source.read(index.shards[shard], offset - HEADER, 100)
        yield header.partition(b".")[0].decode("ascii", "replace")
