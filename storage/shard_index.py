"""The index of a shard set for training: where every text's image and texts lie, by split."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")
INDEX = "index.json"

ENTRY = np.dtype([
    ("shard", "<u4"), ("text", "<u4"),
    ("jpg_offset", "<u8"), ("jpg_size", "<u4"), ("json_offset", "<u8"), ("json_size", "<u4"),
])  # fmt: skip
"""One entry per text row: the position of its tar in the index's list of shards, the position of the text in the JSON
member's `rows`, and where the members' contents lie in the tar."""

OPEN_FILES = 128


class Entry(NamedTuple):
    """One text row's place, field by field as in `ENTRY`."""

    shard: int
    text: int
    jpg_offset: int
    jpg_size: int
    json_offset: int
    json_size: int


class ShardBytes(Protocol):
    """Where tars are read from. It is sent to loader processes, so it must survive pickling."""

    def sizes(self) -> Mapping[str, int]:
        """Return the size of every file by its name."""

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return a part of a file, shorter where the file ends before it; `OSError` when it cannot be read."""


class LocalBytes:
    """Tars in a folder. Any thread may read; at most `open_files` files stay open."""

    def __init__(self, folder: Path, open_files: int = OPEN_FILES) -> None:
        self._arguments = folder, open_files
        self._file = lru_cache(open_files)(lambda name: _File(os.open(folder / name, os.O_RDONLY)))

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalBytes, self._arguments

    def __str__(self) -> str:
        return str(self._arguments[0])

    def sizes(self) -> Mapping[str, int]:
        """Return the size of every file by its name."""
        with os.scandir(self._arguments[0]) as files:
            return {file.name: file.stat().st_size for file in files}

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return a part of a file, shorter where the file ends before it; `OSError` when it cannot be read."""
        file = self._file(name)
        return os.pread(file.number, size, offset)


class _File:
    """A file descriptor that is closed when nobody uses it any more, be that after it was dropped from a cache."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class SplitIndex:
    """The entries of one split, memory-mapped, and the tars that they point into."""

    def __init__(self, folder: Path, split: str) -> None:
        if split not in SPLITS:
            raise ValueError(f"there is no split {split!r}; there are {', '.join(SPLITS)}")
        path = folder / f"{split}.npy"
        try:
            self._shards: list[dict[str, Any]] = json.loads((folder / INDEX).read_bytes())["shards"]
            entries = np.load(path, mmap_mode="r")
        except FileNotFoundError as error:
            raise ValueError(
                f"{folder} is no index of a shard set: {Path(error.filename).name} is missing; build it with the stage "
                "image_text_index"
            ) from None
        if entries.dtype != ENTRY or entries.ndim != 1:
            raise ValueError(f"{path} holds {entries.dtype} {entries.shape}, not index entries; build the index again")
        self.entries: NDArray[np.void] = entries.view(np.ndarray)
        self.shards = [shard["name"] for shard in self._shards]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Entry:
        return Entry(*self.entries[index].item())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of entries and tars: splits with equal ones have equal samples in equal order."""
        digest = hashlib.sha256(json.dumps([shard["sha256"] for shard in self._shards]).encode())
        digest.update(self.entries.data)
        return digest.hexdigest()

    def check_sizes(self, source: ShardBytes) -> None:
        """Raise `ValueError` unless every tar is there in the size that the index was made for."""
        try:
            sizes = source.sizes()
        except OSError as error:
            raise ValueError(f"the shards in {source} cannot be listed ({error}); give their folder") from error
        for shard in self._shards:
            name, wanted = shard["name"], shard["bytes"]
            if name not in sizes:
                raise ValueError(f"{name} is missing in {source}; give the folder of the shards that were indexed")
            if sizes[name] != wanted:
                raise ValueError(
                    f"{name} in {source} has {sizes[name]} bytes, not the {wanted} that were indexed; restore it, or "
                    "build the index again"
                )


def first_of_each_image(entries: NDArray[np.void]) -> NDArray[np.int64]:
    """Return where in an index (`ENTRY`) the first text of each image stands."""
    return np.sort(np.unique(entries[["shard", "jpg_offset"]], return_index=True)[1])
