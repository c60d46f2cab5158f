"""The loader over a shard set: what a sample is, what is refused, and that any interruption leaves no trace."""

from __future__ import annotations

import json
import os
import tarfile
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from configs.vision_language import Fit
from storage.image_decoding import decode_square
from storage.image_text_dataset import ImageTextDataset
from storage.sampling import KeyedBatchSampler, LoaderState
from storage.shard_index import INDEX, LocalBytes, SplitIndex
from tests.image_text.loader_shards import ShardFolders, write_shards

SIDE = 64


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> ShardFolders:
    return write_shards(tmp_path_factory.mktemp("loader"))


@pytest.fixture
def own(tmp_path: Path) -> ShardFolders:
    """Shards of a test that damages them."""
    return write_shards(tmp_path)


def opened(folders: ShardFolders, split: str = "train", **options: Any) -> ImageTextDataset:
    return ImageTextDataset(folders.shards, folders.index, split, **{"side": SIDE, **options})


class Watched(LocalBytes):
    """Knows the sizes of all reads."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reads: list[int] = []

    def read(self, name: str, offset: int, size: int) -> bytes:
        self.reads.append(size)
        return super().read(name, offset, size)


def damage(folders: ShardFolders, key: str, member: str = "jpg", *, begin: int = 0) -> None:
    """Overwrite part of a member; the tar keeps its size."""
    for path in sorted(folders.shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            if f"{key}.{member}" not in tar.getnames():
                continue
            info = tar.getmember(f"{key}.{member}")
        with path.open("r+b") as file:
            file.seek(info.offset_data + begin)
            file.write(bytes(info.size - begin))
        return
    raise AssertionError(key)


@pytest.mark.parametrize(
    ("split", "fit"), [("train", "crop"), ("train", "pad"), ("validation", "crop"), ("test", "crop")]
)
def test_every_text_row_comes_with_its_image(written: ShardFolders, split: str, fit: Fit) -> None:
    dataset = opened(written, split, fit=fit)
    wanted = written.rows(split)
    assert len(dataset) == len(wanted)
    for index, (sample, (image, text)) in enumerate(zip(dataset, wanted, strict=True)):
        assert sample["image"].dtype == torch.uint8
        assert sample["image"].shape == (3, SIDE, SIDE)
        assert np.array_equal(sample["image"].permute(1, 2, 0), decode_square(image["jpeg"], SIDE, fit))
        found = {name: sample[name] for name in ("caption", "question", "answer", "templated", "row")}
        assert found == {name: text[name] for name in found}
        assert (sample["key"], sample["index"], sample["replacement"]) == (image["key"], index, False)
    assert dataset.reads == len(wanted)
    with pytest.raises(IndexError):
        dataset[len(wanted)]


def test_members_that_do_not_follow_each_other_are_read_too(own: ShardFolders) -> None:
    """The index says where members lie; a set packed by others may have images and texts far apart."""
    plain = list(opened(own))
    path = own.shards / "00000.tar"
    size = path.stat().st_size
    entries = np.load(own.index / "train.npy")
    with path.open("r+b") as file:
        file.truncate(size + 10_000)
        for number in np.flatnonzero(entries["shard"] == 0):
            file.seek(int(entries[number]["json_offset"]))
            content = file.read(int(entries[number]["json_size"]))
            entries["json_offset"][number] = file.seek(0, os.SEEK_END)
            file.write(content)
    np.save(own.index / "train.npy", entries)
    stated = json.loads((own.index / INDEX).read_text())
    stated["shards"][0]["bytes"] = path.stat().st_size
    (own.index / INDEX).write_text(json.dumps(stated))
    watched = Watched(own.shards)
    found = list(ImageTextDataset(watched, own.index, "train", side=SIDE))
    torch.testing.assert_close([s["image"] for s in found], [s["image"] for s in plain], rtol=0, atol=0)
    assert [s["caption"] for s in found] == [s["caption"] for s in plain]
    assert len(watched.reads) == len(found) + np.count_nonzero(entries["shard"] == 0)
    assert sum(watched.reads) < sum(entries["jpg_size"] + entries["json_size"] + 1024)


@pytest.mark.parametrize("begin", [0, 400, -20])
def test_damaged_bytes_raise_with_tar_and_key(own: ShardFolders, begin: int) -> None:
    image, _ = own.rows("train")[4]
    damage(own, image["key"], begin=begin if begin >= 0 else len(image["jpeg"]) + begin)
    dataset = opened(own)
    bad = [k for k, (other, _) in enumerate(own.rows("train")) if other is image]
    for index in range(len(dataset)):
        if index in bad:
            with pytest.raises(ValueError, match=rf"sample {image['key']} of 0000\d\.tar in .*shards cannot be read"):
                dataset[index]
        else:
            dataset[index]


def test_damaged_texts_raise_with_tar_and_key(own: ShardFolders) -> None:
    image, _ = own.rows("train")[0]
    damage(own, image["key"], "json", begin=20)
    with pytest.raises(ValueError, match=f"sample {image['key']} of 00000.tar"):
        opened(own)[0]


def test_a_file_that_is_gone_raises_with_its_name(own: ShardFolders) -> None:
    dataset = opened(own)
    (own.shards / "00001.tar").unlink()
    index = next(k for k, entry in enumerate(dataset.index.entries) if entry["shard"] == 1)
    with pytest.raises(ValueError, match=r"of 00001\.tar in .* cannot be read \(FileNotFoundError"):
        dataset[index]


def test_broken_samples_are_replaced_by_choice_and_counted(own: ShardFolders) -> None:
    keys = {own.rows("train")[k][0]["key"] for k in (1, 9)}
    for key in keys:
        damage(own, key, begin=300)
    dataset, again = (opened(own, on_error="skip", max_error_share=0.5) for _ in range(2))
    bad = {k for k, (image, _) in enumerate(own.rows("train")) if image["key"] in keys}
    samples = list(dataset)
    assert {k for k, sample in enumerate(samples) if sample["replacement"]} == bad
    assert {sample["index"] for k, sample in enumerate(samples) if k in bad}.isdisjoint(bad)
    assert not {sample["key"] for sample in samples} & keys
    assert dataset.errors >= len(bad)
    assert dataset.reads == len(samples) + dataset.errors
    order = sorted(range(len(again)), key=lambda k: -k)
    assert {k: again[k]["index"] for k in order} == {k: sample["index"] for k, sample in enumerate(samples)}
    for k in bad:  # the texts belong to the image that is there
        stands_in = samples[samples[k]["index"]]
        assert samples[k]["row"] == stands_in["row"]
        assert torch.equal(samples[k]["image"], stands_in["image"])


def test_too_many_broken_samples_end_it(own: ShardFolders) -> None:
    damage(own, own.rows("train")[0][0]["key"])
    dataset = opened(own, on_error="skip", max_error_share=0.02)
    good = next(k for k, (image, _) in enumerate(own.rows("train")) if k and image["key"] != own.images[0]["key"])
    for _ in range(3):
        dataset[0]  # fewer than 100 reads say nothing
    while dataset.reads < 99:
        dataset[good]
    with pytest.raises(ValueError, match=r"3 of 100 reads of samples failed, more than the share of 0\.02"):
        dataset[good]


def test_only_broken_samples_end_too(own: ShardFolders) -> None:
    for image in own.images:
        damage(own, image["key"])
    with pytest.raises(ValueError, match=r"100 of 100 reads of samples failed, .*; the last: sample 0000000"):
        opened(own, on_error="skip", max_error_share=0.99)[3]


def test_an_index_of_other_shards_is_refused(own: ShardFolders) -> None:
    path = own.shards / "00001.tar"
    content = path.read_bytes()
    path.write_bytes(content[:-512])
    with pytest.raises(ValueError, match=rf"00001\.tar in .* has {len(content) - 512} bytes, not the {len(content)}"):
        opened(own)
    path.unlink()
    with pytest.raises(ValueError, match=r"00001\.tar is missing in .*; give the folder of the shards"):
        opened(own)
    with pytest.raises(ValueError, match="cannot be listed"):
        ImageTextDataset(own.shards / "nowhere", own.index, "train", side=SIDE)


def test_folders_may_be_given_as_text(own: ShardFolders) -> None:
    told = ImageTextDataset(str(own.shards), str(own.index), "train", side=SIDE)
    (sample,) = DataLoader(told, batch_size=None, sampler=[1], num_workers=1, multiprocessing_context="forkserver")
    assert told.fingerprint == opened(own).fingerprint
    assert torch.equal(sample["image"], opened(own)[1]["image"])
    with pytest.raises(ValueError, match="nowhere cannot be listed"):
        ImageTextDataset(str(own.shards / "nowhere"), own.index, "train", side=SIDE)


def test_what_is_no_index_is_refused(own: ShardFolders) -> None:
    with pytest.raises(ValueError, match="there is no split 'val'; there are train, validation, test"):
        opened(own, "val")
    np.save(own.index / "test.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"holds float64 \(3,\), not index entries"):
        opened(own, "test")
    (own.index / INDEX).unlink()
    with pytest.raises(ValueError, match=r"is no index of a shard set: index\.json is missing"):
        opened(own)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"side": 0}, "images of side 0"),
        ({"fit": "squeeze"}, "fit is one of crop, pad"),
        ({"on_error": "ignore"}, "'raise' or 'skip', not 'ignore'"),
        ({"max_error_share": 1.0}, "below 1"),
    ],
)
def test_impossible_options_are_refused(written: ShardFolders, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        opened(written, **options)


def test_few_files_stay_open_and_all_are_closed(own: ShardFolders) -> None:
    def descriptors() -> int:
        return sum(
            own.shards in link.readlink().parents for link in Path("/proc/self/fd").iterdir() if link.is_symlink()
        )

    source = LocalBytes(own.shards, open_files=2)
    dataset = ImageTextDataset(source, own.index, "train", side=SIDE)
    assert descriptors() == 0
    assert len({sample["key"][:-1] for sample in dataset}) > 1
    assert descriptors() == 2
    del dataset, source
    assert descriptors() == 0


def batches(
    folders: ShardFolders, state: LoaderState | None, world_size: int, workers: int, context: str | None = None
) -> list[dict[str, Any]]:
    """Return the global batches of an epoch from a state on, as so many ranks and workers read them."""
    loaders = []
    for rank in range(world_size):
        dataset = opened(folders)
        sampler = sampler_of(dataset, rank, world_size)
        if state is not None:
            sampler.load_state(state)
        loaders.append(DataLoader(dataset, batch_sampler=sampler, num_workers=workers, multiprocessing_context=context))
    return [
        {
            "image": torch.cat([part["image"] for part in parts]),
            "key": list(chain(*(part["key"] for part in parts))),
            "row": torch.cat([part["row"] for part in parts]),
        }
        for parts in zip(*loaders, strict=True)
    ]


def sampler_of(dataset: ImageTextDataset, rank: int = 0, world_size: int = 1) -> KeyedBatchSampler:
    return KeyedBatchSampler(
        len(dataset),
        4,
        3,
        rank=rank,
        world_size=world_size,
        epoch=1,
        block=4,
        window=2,
        fingerprint=dataset.fingerprint,
    )


@pytest.mark.parametrize(
    ("world_size", "workers", "context"),
    [
        (1, 2, "fork"),
        (2, 0, None),
        pytest.param(4, 1, "forkserver", marks=pytest.mark.long),
        pytest.param(1, 2, "spawn", marks=pytest.mark.long),
    ],
)
def test_it_goes_on_exactly_with_other_ranks_and_workers(
    written: ShardFolders, world_size: int, workers: int, context: str | None
) -> None:
    whole = batches(written, None, 1, 0)
    assert len(whole) == len(written.rows("train")) // 4
    state = sampler_of(opened(written)).state(3)
    resumed = batches(
        written, LoaderState.from_dict(json.loads(json.dumps(state.to_dict()))), world_size, workers, context
    )
    assert [b["key"] for b in resumed] == [b["key"] for b in whole[3:]]
    for mine, other in zip(resumed, whole[3:], strict=True):
        torch.testing.assert_close((mine["image"], mine["row"]), (other["image"], other["row"]), rtol=0, atol=0)


def test_a_position_in_another_index_is_refused(written: ShardFolders, tmp_path: Path) -> None:
    state = sampler_of(opened(written)).state(3)
    entries = np.load(written.index / "train.npy")
    other = tmp_path / "index"
    other.mkdir()
    (other / INDEX).write_bytes((written.index / INDEX).read_bytes())
    np.save(other / "train.npy", np.concatenate([entries[1:], entries[:1]]))
    with pytest.raises(ValueError, match="the saved position belongs to another samples or shuffling"):
        sampler_of(ImageTextDataset(written.shards, other, "train", side=SIDE)).load_state(state)


def test_the_fingerprint_is_that_of_entries_and_tars(written: ShardFolders, tmp_path: Path) -> None:
    same = write_shards(tmp_path)
    prints = {split: SplitIndex(written.index, split).fingerprint for split in ("train", "validation")}
    assert len(set(prints.values())) == 2
    assert prints == {split: SplitIndex(same.index, split).fingerprint for split in prints}
    stated = json.loads((same.index / INDEX).read_text())
    stated["shards"][0]["sha256"] = "0" * 64
    (same.index / INDEX).write_text(json.dumps(stated))
    assert SplitIndex(same.index, "train").fingerprint != prints["train"]
