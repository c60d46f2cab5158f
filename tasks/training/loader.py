"""Batches for the loop: the order is a function of seed and step, each sample's randomness of seed, pass and index."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from storage.sampling import KeyedBatchSampler, sample_seed
from tasks.training.share import Share
from tasks.training.transfer import MicroBatch, Packed, move

Key = tuple[int, int]  # (pass over the data, index of the sample)


class Source(Protocol):
    """Map-style samples. It is sent to loader processes, so it must survive pickling."""

    def __len__(self) -> int: ...

    def sample(self, index: int, seed: int) -> Any:
        """Return one sample; everything random about it comes from `seed`, nothing from global generators."""


Weigher = Callable[[Any], dict[str, float]]
"""From a batch on the CPU, by loss term, what it adds to the denominator. It is sent to loader processes."""


class KeyedSamples(Dataset[tuple[int, Any]]):
    """A source whose items are asked for by (pass, index), so that the seed of each follows from its key."""

    def __init__(self, source: Source, seed: int) -> None:
        self._source, self._seed = source, seed

    def __getitem__(self, key: Key) -> tuple[int, Any]:
        number, index = key
        return index, self._source.sample(index, sample_seed(self._seed, number, index))


class Collate:
    """The objective's collate, in the loader processes: with the samples' indices and weights kept beside the batch."""

    def __init__(self, collate: Callable[[Sequence[Any]], Any], weigh: Weigher, packed: bool) -> None:
        self._collate, self._weigh, self._packed = collate, weigh, packed

    def __call__(self, items: Sequence[tuple[int, Any]]) -> MicroBatch:
        """Return the micro-batch of what the data set returned."""
        batch = self._collate([sample for _, sample in items])
        weights = self._weigh(batch)
        return MicroBatch([index for index, _ in items], Packed(batch) if self._packed else batch, weights)


class MicroBatches:
    """The keys of one rank's micro-batches from a step on, pass after pass, to the last step of the training."""

    def __init__(
        self, n: int, batch_size: int, accumulation: int, seed: int, share: Share, first: int, stop: int
    ) -> None:
        self._sampler = KeyedBatchSampler(n, batch_size, seed, rank=share.rank, world_size=share.world_size)
        self._accumulation, self._first, self._stop = accumulation, first, stop

    @property
    def steps_per_pass(self) -> int:
        """Global batches in one pass over the data; what does not fill one is left out of that pass."""
        return self._sampler.steps_per_epoch

    def __iter__(self) -> Iterator[list[Key]]:
        step = self._first
        while step < self._stop:
            number, position = divmod(step, self.steps_per_pass)
            self._sampler.seek(number, position)
            for indices in self._sampler:
                if step == self._stop:
                    return
                for part in np.array_split(np.array(indices), self._accumulation):
                    yield [(number, index) for index in part.tolist()]
                step += 1


def training_batches(
    share: Share,
    source: Source,
    collate: Callable[[Sequence[Any]], Any],
    weigh: Weigher,
    order: MicroBatches,
    seed: int,
) -> Iterator[MicroBatch]:
    """Yield this rank's micro-batches on the CPU; loader processes live as long as the iterator."""
    return iter(_loader(share, KeyedSamples(source, seed), collate, weigh, order))


def ordered_batches(
    share: Share, source: Source, collate: Callable[[Sequence[Any]], Any], batch_size: int, seed: int = 0
) -> Iterator[Any]:
    """Yield this rank's part of a source in order, as batches on its device; for evaluations."""
    mine = share.mine(len(source))
    keys = [[(0, i) for i in mine[k : k + batch_size]] for k in range(0, len(mine), batch_size)]
    for item in _loader(share, KeyedSamples(source, seed), collate, _unweighed, keys):
        yield move(item.batch, share.device)


def _unweighed(batch: Any) -> dict[str, float]:
    return {}


def _loader(
    share: Share, dataset: Dataset[Any], collate: Callable[[Sequence[Any]], Any], weigh: Weigher, keys: Any
) -> DataLoader[Any]:
    """Return a loader that takes nothing from global random generators.

    Its processes come from a fork server, not from a fork of this process, which has threads (torch, gloo, zarr) and
    perhaps a CUDA context.
    """
    workers: dict[str, Any] = {}
    if share.loader_workers:
        multiprocessing.get_context("forkserver").set_forkserver_preload(["torch", "tasks.training.loader"])
        workers = {"multiprocessing_context": "forkserver", "worker_init_fn": _start_worker, "prefetch_factor": 4}
    to_gpu = share.device.type == "cuda"
    return DataLoader(
        dataset,
        batch_sampler=keys,
        collate_fn=Collate(collate, weigh, packed=to_gpu),
        num_workers=share.loader_workers,
        pin_memory=to_gpu,
        generator=torch.Generator().manual_seed(0),  # else each iterator draws from the generator that dropout uses
        **workers,
    )


def _start_worker(worker: int) -> None:
    """End this process when the rank does.

    PyTorch's own watch asks whether the parent process lives; here that is the fork server, which in turn lives as
    long as any process that it forked.
    """
    rank = multiprocessing.parent_process()
    assert rank is not None

    def watch() -> None:
        rank.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
