"""The order of training samples as a pure function of (seed, epoch): nothing to store, any position at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

MASK = 2**64 - 1
ROUNDS = 8  # even, so that both halves end up where they began
BLOCK = 256  # neighbouring samples that are read in one stretch
WINDOW = 16  # blocks whose samples are mixed

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


class _Network:
    """A Feistel network: a keyed permutation of range(2**bits), and with tweaks many independent ones."""

    def __init__(self, bits: int, seed: int, epoch: int, stream: int) -> None:
        self._widths = bits // 2, bits - bits // 2
        self._keys = [sample_seed(seed, epoch, -1 - k) for k in range(stream * ROUNDS, (stream + 1) * ROUNDS)]

    def __call__(self, value: Word, tweak: Word | int = 0) -> Word:
        low, high = self._widths
        left, right = value >> high, value & ((1 << high) - 1)
        for key in self._keys:
            left, right = right, left ^ (_mix((right + key + tweak) & MASK) & ((1 << low) - 1))
            low, high = high, low
        return (left << high) | right


class KeyedPermutation:
    """A permutation of range(n), different for every (seed, epoch), in constant memory.

    A Feistel network permutes the next power of two; results beyond n go through it again until they fall inside.
    """

    def __init__(self, n: int, seed: int, epoch: int) -> None:
        if n < 1:
            raise ValueError(f"a permutation needs at least one element, not {n}")
        self._n = n
        self._network = _Network((n - 1).bit_length(), seed, epoch, 0)

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


class BlockPermutation:
    """A permutation of range(n) that a disk likes: blocks of neighbours in random order, shuffled window by window.

    Elements are cut into blocks of `block` neighbours, beginning at a random element and closing the ring, so that
    borders and the short block at the end differ between epochs. Blocks come in random order; the elements of every
    `window` of them or fewer are shuffled. Memory and the time per position are constant.
    """

    def __init__(self, n: int, seed: int, epoch: int, block: int = BLOCK, window: int = WINDOW) -> None:
        if n < 1 or block < 1 or window < 1:
            raise ValueError(f"samples ({n}), block ({block}) and window ({window}) must be at least 1")
        self._n, self._block = n, block
        blocks = -(-n // block)
        self._whole = n // block
        self._order = KeyedPermutation(max(1, self._whole), seed, epoch)
        # windows of nearly equal size, so that no epoch ends in a small one; the first `longer` have a block more
        self._least, self._longer = divmod(blocks, -(-blocks // window))
        self._network = _Network(((self._least + (self._longer > 0)) * block - 1).bit_length(), seed, epoch, 1)
        self._begin = sample_seed(seed, epoch, -1 - 2 * ROUNDS) % n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, position: int) -> int:
        """Return the element at a position."""
        if not 0 <= position < self._n:
            raise IndexError(f"position {position} is outside a permutation of {self._n}")
        return int(self.take(np.array([position]))[0])

    def take(self, positions: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the elements at many positions."""
        place, within = np.divmod(self._shuffled(positions.astype(np.int64)), self._block)
        is_whole = place < self._whole
        place[is_whole] = self._order.take(place[is_whole])
        return (place * self._block + within + self._begin) % self._n

    def _shuffled(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return positions, each exchanged for another one of its window."""
        window = self._window(positions // self._block)
        first = window * self._least + np.minimum(window, self._longer)
        begin = first * self._block
        end = np.minimum((first + self._least + (window < self._longer)) * self._block, self._n)
        size, tweak = (end - begin).astype(np.uint64), _mix(window.astype(np.uint64))
        values = self._network((positions - begin).astype(np.uint64), tweak)
        while (beyond := np.flatnonzero(values >= size)).size:
            values[beyond] = self._network(values[beyond], tweak[beyond])
        return begin + values.astype(np.int64)

    def _window(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        border = self._longer * (self._least + 1)
        return np.where(places < border, places // (self._least + 1), self._longer + (places - border) // self._least)


@dataclass(frozen=True, slots=True)
class LoaderState:
    """Where a loader stands. Any number of ranks and workers with the same global batch goes on from here, exactly."""

    order: str
    """Fingerprint of the samples' index, and how it is shuffled."""
    seed: int
    epoch: int
    step: int
    """The next step of the epoch."""
    batch_size: int
    """Samples of a global batch."""

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` returned."""
        try:
            return cls(**values)
        except TypeError:
            raise ValueError(f"{', '.join(values)} are not the fields of a loader's state; it is damaged") from None


class KeyedBatchSampler:
    """Batches of one rank from `step` of `epoch` to the epoch's end; a `batch_sampler` for a PyTorch DataLoader.

    The global batch at a step depends on (n, batch_size, seed, epoch, step) alone; the ranks' batches are its equal,
    consecutive parts. With `drop_last=False` the last global batch is what is left, cut as evenly as possible; a rank
    that gets nothing of it has one step less. A training loop keeps (epoch, step) as its state and calls `seek`, or
    keeps `state(step)`, which also says of which order, and calls `load_state`; it counts steps itself, since a
    DataLoader draws batches ahead.

    With `block`, neighbours stay together in blocks of so many samples (see `BlockPermutation`): for data that are
    read from disk or over a network. `fingerprint` names the samples in states.
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
        block: int | None = None,
        window: int = WINDOW,
        fingerprint: str = "",
    ) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(f"the global batch size ({batch_size}) must be a multiple of the {world_size} ranks")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not one of {world_size} ranks")
        if n < (batch_size if drop_last else 1):
            raise ValueError(f"{n} samples do not fill one global batch of {batch_size}; lower the batch size")
        if block is not None and min(block, window) < 1:
            raise ValueError(f"block ({block}) and window ({window}) must be at least 1")
        self._n, self._batch_size, self._seed = n, batch_size, seed
        self._rank, self._world_size = rank, world_size
        self._shuffle, self._drop_last = shuffle, drop_last
        self._block, self._window, self._fingerprint = block, window, fingerprint
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
        return self._permutation().take(positions) if self._shuffle else positions

    def _permutation(self) -> KeyedPermutation | BlockPermutation:
        if self._block is None:
            return KeyedPermutation(self._n, self._seed, self.epoch)
        return BlockPermutation(self._n, self._seed, self.epoch, self._block, self._window)

    @property
    def order(self) -> str:
        """What the order depends on besides seed and epoch, in words."""
        blocks = f"blocks of {self._block} in windows of {self._window}" if self._block else "shuffled"
        last = "" if self._drop_last else ", last batch kept"
        return f"{self._fingerprint} {self._n} samples, {blocks if self._shuffle else 'in order'}{last}".strip()

    def state(self, step: int) -> LoaderState:
        """Return what it takes to go on with a step of the current epoch."""
        return LoaderState(self.order, self._seed, self.epoch, step, self._batch_size)

    def load_state(self, state: LoaderState) -> None:
        """Let the next iteration begin where a state was taken; `ValueError` when it belongs to another order."""
        mine = self.state(state.step)
        for name, words in (("order", "samples or shuffling"), ("seed", "seed"), ("batch_size", "global batch size")):
            saved, found = getattr(state, name), getattr(mine, name)
            if saved != found:
                raise ValueError(
                    f"the saved position belongs to another {words} ({saved}) than this loader ({found}); go on with "
                    "what it was saved with, or start from the beginning"
                )
        self.seek(state.epoch, state.step)

    def __len__(self) -> int:
        return len(range(self.step, self.steps_per_epoch)) - self._without_last()

    def _without_last(self) -> int:
        """Return 1 when the last global batch leaves nothing for this rank, else 0."""
        rest = self._n % self._batch_size
        return int(not self._drop_last and 0 < rest <= self._rank and self.step < self.steps_per_epoch)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.step, self.step + len(self)):
            yield np.array_split(self.global_batch(step), self._world_size)[self._rank].tolist()
