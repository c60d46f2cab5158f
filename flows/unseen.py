"""What a model was trained on, or chosen by, is no test for it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from storage.assets import Asset, AssetStore
from storage.lineage import all_made_from, made_from, short_name
from storage.shard_index import LocalBytes, SplitIndex
from storage.training_set import Block, TrainingSet
from storage.window_store import WindowStore

KNOWN = ("train", "validation")


def require_unseen_images(store: AssetStore, model: Asset, index: Asset) -> None:
    """Raise a `ValueError` where test images of an index are among those that a model or its encoder learned from."""
    own = [each for each in all_made_from(store, model, "image_text_index") if each.fingerprint != index.fingerprint]
    if not own:
        return
    test = _images(store, index, ("test",))
    if met := set().union(*(test & _images(store, each, KNOWN) for each in own)):
        raise ValueError(
            f"{len(met)} of the {len(test)} test images of {short_name(index)} are among those that "
            f"{short_name(model)} was trained or chosen on, so it would be judged on what it knows; give an index with "
            "the seed and splits of the model's own, or of other images"
        )


def _images(store: AssetStore, index: Asset, splits: Sequence[str]) -> set[str]:
    """Return the SHA-256 of the images of some splits, as they were fetched."""
    shards = made_from(store, index, "image_text_shards")
    assert shards is not None, "an index is made of shards"
    for asset in (index, shards):
        asset.fetch()
    source, found = LocalBytes(shards.folder), set()
    for split in splits:
        entries = SplitIndex(index.folder, split)
        for position in range(len(entries)):
            entry = entries[position]
            facts = source.read(entries.shards[entry.shard], entry.json_offset, entry.json_size)
            found.add(json.loads(facts)["sha256"])
    return found


def require_unseen_weather(store: AssetStore, model: Asset, training_set: Asset) -> None:
    """Raise a `ValueError` where test blocks of a training set lie in time and place in those that a model learned
    from.
    """
    for own in all_made_from(store, model, "era5_training_set"):
        if own.fingerprint == training_set.fingerprint or not _share_places(store, own, training_set):
            continue
        known = [block for split in KNOWN for block in _blocks(own, split)]
        for block in _blocks(training_set, "test"):
            met = next((other for other in known if block.start <= other.end and other.start <= block.end), None)
            if met is not None:
                raise ValueError(
                    f"{short_name(training_set)} tests on {block.start:%Y-%m-%d} to {block.end:%Y-%m-%d}, and "
                    f"{short_name(model)} was trained or chosen on {met.start:%Y-%m-%d} to {met.end:%Y-%m-%d} of the "
                    "same region, so it would be judged on what it knows; give a training set whose test period lies "
                    "outside of that, e.g. by splits.test"
                )


def _blocks(training_set: Asset, split: str) -> tuple[Block, ...]:
    training_set.fetch()
    return TrainingSet.load(training_set.folder).splits.get(split, ())


def _share_places(store: AssetStore, *training_sets: Asset) -> bool:
    """Whether the windows of training sets have a grid cell in common."""
    places = []
    for training_set in training_sets:
        windows = made_from(store, training_set, "era5_windows")
        assert windows is not None, "a training set is made of windows"
        windows.fetch()
        grid = WindowStore.open(windows.folder)
        places.append((grid.latitude, grid.longitude % 360))
    return all(len(np.intersect1d(*(np.round(each, 3) for each in axes))) for axes in zip(*places, strict=True))
