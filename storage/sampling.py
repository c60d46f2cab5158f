"""The order of training samples as a pure function of (seed, epoch): nothing to store, any position at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

MASK = 2**64 - 1
ROUNDS = 8  # even, so that both halves end up where they began

Word = TypeVar("Word", int, NDArray[Any])


def _mix(word: Word) -> Word:
    """Scramble 64 bits (the finaliser of SplitMix64), of one integer or of an array."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """Return a seed below 2**63 for the random choices of one sample in one epoch."""
    word = 0
    for part in (seed, epoch, index):
        word = _mix((word + part + 0x9E3779B97F4A7C15) & MASK)
    return word >> 1


class KeyedPermutation:
    """A permutation of range(n), different for every (seed, epoch), in constant memory.

    A Feistel network permutes the next power of two; results beyond n go through it again until they fall inside.
    """

    def __init__(self, n: int, seed: int, epoch: int) -> None:
        if n < 1:
            raise ValueError(f"a permutation needs at least one element, not {n}")
        self._n = n
        bits = (n - 1).bit_length()
        self._widths = bits // 2, bits - bits // 2
        self._keys = [sample_seed(seed, epoch, -1 - k) for k in range(ROUNDS)]

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, position: int) -> int:
        """Return the element at a position."""
        if not 0 <= position < self._n:
            raise IndexError(f"position {position} is outside a permutation of {self._n}")
        value = self._network(position)
        while value >= self._n:
            value = self._network(value)
        return value

    def take(self, positions: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the elements at many positions."""
        values = self._network(positions.astype(np.uint64))
        while (beyond := np.flatnonzero(values >= self._n)).size:
            values[beyond] = self._network(values[beyond])
        return values.astype(np.int64)

    def _network(self, value: Word) -> Word:
        low, high = self._widths
        left, right = value >> high, value & ((1 << high) - 1)
        for key in self._keys:
            left, right = right, left ^ (_mix((right + key) & MASK) & ((1 << low) - 1))
            low, high = high, low
        return (left << high) | right


class KeyedBatchSampler:
    """Batches of one rank from `step` of `epoch` to the epoch's end; a `batch_sampler` for a PyTorch DataLoader.

    The global batch at a step depends on (n, batch_size, seed, epoch, step) alone; the ranks' batches are its equal,
    consecutive parts. With `drop_last=False` the last global batch is what is left, cut as evenly as possible; a rank
    that gets nothing of it has one step less. A training loop keeps (epoch, step) as its state and calls `seek`.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        epoch: int = 0,
        step: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
    ) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(f"the global batch size ({batch_size}) must be a multiple of the {world_size} ranks")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not one of {world_size} ranks")
        if n < (batch_size if drop_last else 1):
            raise ValueError(f"{n} samples do not fill one global batch of {batch_size}; lower the batch size")
        self._n, self._batch_size, self._seed = n, batch_size, seed
        self._rank, self._world_size = rank, world_size
        self._shuffle, self._drop_last = shuffle, drop_last
        self.seek(epoch, step)

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of an epoch."""
        return self._n // self._batch_size if self._drop_last else -(-self._n // self._batch_size)

    def seek(self, epoch: int, step: int = 0) -> None:
        """Let the next iteration begin at this step."""
        if epoch < 0 or not 0 <= step <= self.steps_per_epoch:
            raise ValueError(f"step {step} of epoch {epoch} does not exist: an epoch has {self.steps_per_epoch} steps")
        self.epoch, self.step = epoch, step

    def global_batch(self, step: int) -> NDArray[np.int64]:
        """Return the indices of all ranks at a step of the current epoch, in rank order."""
        positions = np.arange(step * self._batch_size, min((step + 1) * self._batch_size, self._n))
        return KeyedPermutation(self._n, self._seed, self.epoch).take(positions) if self._shuffle else positions

    def __len__(self) -> int:
        return len(range(self.step, self.steps_per_epoch)) - self._without_last()

    def _without_last(self) -> int:
        """Return 1 when the last global batch leaves nothing for this rank, else 0."""
        rest = self._n % self._batch_size
        return int(not self._drop_last and 0 < rest <= self._rank and self.step < self.steps_per_epoch)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.step, self.step + len(self)):
            yield np.array_split(self.global_batch(step), self._world_size)[self._rank].tolist()
