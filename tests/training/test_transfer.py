"""Batches on their way to a device: packed and unpacked they are the same, and they come step by step."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch

from storage.sampling import KeyedBatchSampler
from tasks.training.loader import Collate, KeyedSamples
from tasks.training.transfer import ALIGNMENT, Ahead, MicroBatch, Packed, move
from tests.training.toy import Numbers, Toy, weigh
from tests.training.trainers import trainer


@dataclass
class Batch:
    """A batch with everything that tensors come in."""

    data: torch.Tensor
    flags: torch.Tensor
    grid: tuple[int, int]
    more: dict[str, Any]


def batch() -> Batch:
    make = torch.Generator().manual_seed(0)
    return Batch(
        data=torch.randn(3, 5, 7, generator=make).transpose(0, 2),
        flags=torch.rand(13, generator=make) > 0.5,
        grid=(4, 2),
        more={
            "codes": [torch.randint(0, 200, (5,), generator=make).to(torch.uint8), torch.tensor(7)],
            "none": None,
            "pair": (torch.empty(0, 3), torch.randint(0, 9, (2, 2), generator=make)),
            "half": torch.randn(3, generator=make).bfloat16(),
            "words": "as they are",
        },
    )


def leaves(value: Any) -> list[Any]:
    if isinstance(value, Batch):
        return [leaf for f in fields(value) for leaf in leaves(getattr(value, f.name))]
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def assert_same(found: Any, expected: Any) -> None:
    for a, b in zip(leaves(found), leaves(expected), strict=True):
        if isinstance(b, torch.Tensor):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert torch.equal(a, b)
        else:
            assert a == b


def test_a_packed_batch_unpacks_to_what_it_was():
    packed = Packed(batch())
    found = packed.unpack("cpu")
    assert isinstance(found, Batch)
    assert_same(found, batch())
    tensors = [leaf for leaf in leaves(found) if isinstance(leaf, torch.Tensor)]
    assert len({t.untyped_storage().data_ptr() for t in tensors if t.numel()}) == 1, "one buffer"
    assert all(t.storage_offset() * t.element_size() % ALIGNMENT == 0 for t in tensors)
    assert move(packed, "meta").more["half"].device.type == "meta"


@pytest.mark.parametrize("workers", [0, 2])
def test_packed_batches_come_through_the_loader_as_plain_ones_do(workers):
    def loaded(packed: bool) -> list[MicroBatch]:
        sampler = KeyedBatchSampler(48, 8, 0)
        keys = [[(0, i) for i in indices] for indices in sampler]
        loader = torch.utils.data.DataLoader(
            KeyedSamples(Numbers(), 3),
            batch_sampler=keys,
            collate_fn=Collate(Toy.collate, weigh, packed),
            num_workers=workers if packed else 0,
            multiprocessing_context="forkserver" if packed and workers else None,
        )
        return list(loader)

    for packed, plain in zip(loaded(True), loaded(False), strict=True):
        assert isinstance(packed.batch, Packed)
        assert packed.indices == plain.indices
        assert packed.weights == plain.weights == weigh(plain.batch)
        assert_same(move(packed.batch, "cpu"), plain.batch)


def test_steps_come_in_order_and_end(tmp_path):
    one = trainer(tmp_path, accumulation=2)
    ahead = one.batches(0, 5)
    assert isinstance(ahead, Ahead)
    steps = []
    for micro_batches in ahead:
        ahead.prefetch()
        steps.append([index for micro in micro_batches for index in micro.indices])
    assert len(steps) == 5
    assert steps[3:] == [[i for micro in m for i in micro.indices] for m in one.batches(3, 5)]
    assert all(len(indices) == 8 for indices in steps)


@pytest.mark.gpu
def test_a_gpu_gets_the_next_step_while_it_is_at_work(tmp_path):
    batches = [MicroBatch([k], Packed(batch()).pin_memory(), {}) for k in range(6)]
    ahead = Ahead(iter(batches), 2, torch.device("cuda"))
    for step in range(3):
        torch.randn(2000, 2000, device="cuda") @ torch.randn(2000, 2000, device="cuda")
        found = next(ahead)
        ahead.prefetch()
        assert [micro.indices for micro in found] == [[2 * step], [2 * step + 1]]
        for micro in found:
            assert_same(move(micro.batch, "cpu"), batch())
    with pytest.raises(StopIteration):
        next(ahead)
