"""The stage that shows every image to an encoder once, for all the decoders that are asked about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from configs.training import Execution
from storage.assets import Asset, Unit
from storage.hashing import digest
from storage.question_set import Asked, features_file, write_features, write_questions
from storage.shard_index import SPLITS, SplitIndex, first_of_each_image
from tasks.showing import seen_of, show_units
from tasks.stage import Job, StageResult, stage
from tasks.units import UnitOutput

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.alignment.released import AlignedRelease

BATCH = 32


class Shown(NamedTuple):
    """What a unit shows to the encoder: images of one split in one shard, by their first texts' places in the index."""

    encoder: Path
    shards: Path
    entries: Path
    split: str
    places: list[int]
    file: str
    device: str


@stage("question_set")
def image_questions(job: Job, *, shards: Asset, index: Asset, encoder: Asset, execution: Execution) -> StageResult:
    """Keep what an encoder sees of each image, as float16 before its projection, beside the questions about it."""
    from tasks.alignment.released import AlignedRelease
    from tasks.training.share import Share

    release = AlignedRelease.from_release(encoder.folder)
    device = str(Share.device_of(execution))
    units: list[Unit] = []
    item_of: dict[tuple[str, int, int], int] = {}
    for split, shard, fingerprint, places, keys in _groups(index.folder):
        file = features_file(len(units))
        for key in keys:
            item_of[(split, *key)] = len(item_of)
        identity = [encoder.fingerprint, fingerprint, split, digest(places), file]
        payload = Shown(encoder.folder, shards.folder, index.folder, split, places, file, device)
        units.append(job.unit(f"{split}-{shard}", identity, payload))
    show_units(job, _show, units, len(item_of), device)
    asked = [one for split in SPLITS for one in _asked(shards.folder, index.folder, split, item_of)]
    if not any(one.split == "train" for one in asked):
        raise ValueError(
            "no row of the training split has a question; give a list with questions and answers, or set "
            "questions.from_captions to true"
        )
    network = release.network.encoder
    shape = (network.tokens, network.resampler.width)
    write_questions(
        job.folder, asked, [len(unit.payload.places) for unit in units], shape, network.projection.state_dict()
    )
    counts = {split: sum(one.split == split for one in asked) for split in SPLITS}
    return StageResult(counts={"images": len(item_of), **counts, "tokens": shape[0], "width": shape[1]})


def _groups(index: Path) -> Iterator[tuple[str, str, str, list[int], list[tuple[int, int]]]]:
    """Yield split, shard, its SHA-256, places of first texts, and (shard, offset) of images, for each pair with any."""
    for split in SPLITS:
        entries = SplitIndex(index, split)
        first = first_of_each_image(entries.entries)
        for number, name in enumerate(entries.shards):
            places = [int(k) for k in first if entries.entries[k]["shard"] == number]
            keys = [(number, int(entries.entries[k]["jpg_offset"])) for k in places]
            if places:
                yield split, name.partition(".")[0], entries.fingerprint, places, keys


def _asked(shards: Path, index: Path, split: str, item_of: dict[Any, int]) -> Iterator[Asked]:
    from storage.image_texts import read_rows

    entries = SplitIndex(index, split).entries
    for entry, row in zip(entries, read_rows(shards, index, split), strict=True):
        if row["question"] and row["answer"]:
            item = item_of[split, int(entry["shard"]), int(entry["jpg_offset"])]
            yield Asked(split, item, row["question"], row["answer"], row["templated"], row["row"], row["key"], item)


def _show(folder: Path, unit: Unit) -> UnitOutput:
    """Show images of a unit to the encoder."""
    import torch

    from storage.image_text_dataset import ImageTextDataset
    from tasks.alignment.released import latents_of

    shown: Shown = unit.payload
    network = _encoder(shown.encoder, shown.device).network
    images = ImageTextDataset(shown.shards, shown.entries, shown.split, **network.encoder.square._asdict())

    def see(places: Sequence[int]) -> Tensor:
        batch = torch.stack([images[place]["image"] for place in places])
        return latents_of(network, batch.to(shown.device)).cpu()

    write_features(folder / shown.file, seen_of(see, shown.places, BATCH))
    return UnitOutput([shown.file])


@lru_cache(maxsize=1)
def _encoder(folder: Path, device: str) -> AlignedRelease:
    from tasks.alignment.released import AlignedRelease

    release = AlignedRelease.from_release(folder)
    release.network.to(device)
    return release
