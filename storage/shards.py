"""Files of Zarr v3's sharding codec: encoded inner chunks, then an index with its CRC-32C.

The index has one (offset, length) pair of little-endian uint64 per inner chunk, in C order; all ones mark a
chunk that is not stored because it holds nothing but the fill value.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

blosc.use_threads = False  # every call gets a context of its own: safe with threads and forks, no global lock

ABSENT = 2**64 - 1
INDEX_ENTRY = np.dtype(("<u8", 2))
CHECKSUM_SIZE = 4
BLOSC_HEADER_SIZE = 16
OPEN_SHARDS = 256  # per process and store; the usual limit is 1024 open files


@dataclass(frozen=True, slots=True)
class ChunkCodec:
    """How the bytes of one chunk are stored: Blosc with byte shuffle, or as they are."""

    compressor: Literal["lz4", "zstd", "none"]
    level: int
    itemsize: int

    def encode(self, chunk: NDArray[Any]) -> bytes:
        """Return the stored bytes of a C-contiguous chunk; equal chunks give equal bytes."""
        if self.compressor == "none":
            return chunk.tobytes()
        return blosc.compress(chunk, self.compressor.encode(), self.level, blosc.SHUFFLE, 0, self.itemsize)

    def decode(self, encoded: bytes, out: NDArray[Any]) -> None:
        """Fill a C-contiguous chunk from its stored bytes; `ValueError` when they are not such a chunk."""
        if self.compressor == "none":
            if len(encoded) != out.nbytes:
                raise ValueError("a chunk has the wrong length")
            out.reshape(-1).view(np.uint8)[:] = np.frombuffer(encoded, np.uint8)
            return
        decoded, stored = int.from_bytes(encoded[4:8], "little"), int.from_bytes(encoded[12:16], "little")
        if len(encoded) < BLOSC_HEADER_SIZE or decoded != out.nbytes or stored != len(encoded):
            raise ValueError("a chunk has the wrong length")
        try:
            blosc.decompress(encoded, out)
        except RuntimeError:
            raise ValueError("a chunk does not decompress") from None

    def metadata(self) -> list[dict[str, Any]]:
        """Return the codec chain as Zarr v3 names it."""
        chain: list[dict[str, Any]] = [{"name": "bytes"}]
        if self.itemsize > 1:
            chain[0]["configuration"] = {"endian": "little"}
        if self.compressor != "none":
            options = {"cname": self.compressor, "clevel": self.level, "shuffle": "shuffle"}
            chain.append({"name": "blosc", "configuration": options | {"typesize": self.itemsize, "blocksize": 0}})
        return chain


class ShardWriter:
    """Appends encoded inner chunks to `<path>.tmp`; `finish` makes that `path`, whole and on disk."""

    def __init__(self, path: Path, chunks: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._temporary = path.with_name(path.name + ".tmp")
        self._index = np.full((chunks, 2), ABSENT, "<u8")
        self._size = 0
        self._file = self._temporary.open("wb")

    def append(self, position: int, encoded: bytes) -> None:
        """Store the inner chunk at `position` in the C order of the shard's chunks."""
        assert self._index[position, 0] == ABSENT, "an inner chunk is written once"
        self._file.write(encoded)
        self._index[position] = self._size, len(encoded)
        self._size += len(encoded)

    def finish(self) -> None:
        """Write the index, flush to disk and take the final name."""
        index = self._index.tobytes()
        self._file.write(index + google_crc32c.value(index).to_bytes(CHECKSUM_SIZE, "little"))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self._path)

    def discard(self) -> None:
        """Remove the temporary file; a finished shard stays."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class Shard:
    """One finished shard file; any thread may read it, and it closes with its last user.

    Reads are plain `pread`s: a memory map would be a tenth faster on files that are in memory, but slower on those that
    are not, and a file that shrinks or a disk that fails would kill the process instead of raising an error.
    """

    def __init__(self, path: Path, chunks: int) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDONLY)
        index_size = chunks * INDEX_ENTRY.itemsize
        body = os.fstat(self._file).st_size - index_size - CHECKSUM_SIZE
        if body < 0:
            raise self._damaged("it is too short")
        tail = os.pread(self._file, index_size + CHECKSUM_SIZE, body)
        if google_crc32c.value(tail[:index_size]) != int.from_bytes(tail[index_size:], "little"):
            raise self._damaged("its index fails the checksum")
        self._index = np.frombuffer(tail[:index_size], INDEX_ENTRY)
        offset, length = self._index[self._index[:, 0] != ABSENT].T
        if ((offset > body) | (length > body - offset)).any():
            raise self._damaged("its index points beyond its end")

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def _damaged(self, why: str) -> ValueError:
        return ValueError(f"{self._path} is damaged ({why}); `millrace verify --deep` finds all such files")

    def read(self, position: int, codec: ChunkCodec, out: NDArray[Any]) -> bool:
        """Decode one inner chunk into a contiguous `out`; False, with `out` as it was, when it is not stored."""
        offset, length = self._index[position].tolist()
        if offset == ABSENT:
            return False
        try:
            codec.decode(os.pread(self._file, length, offset), out)
        except ValueError as error:
            raise self._damaged(str(error)) from None
        return True


class ShardCache:
    """The last used shards of one process; a child made by fork starts with none, whatever its parent held."""

    def __init__(self, load: Callable[[Any], Shard | None]) -> None:
        self._load = load
        self._reset()

    def _reset(self) -> None:
        self._shards: OrderedDict[Hashable, Shard | None] = OrderedDict()
        self._lock = threading.Lock()
        self._process = os.getpid()

    def get(self, key: Hashable) -> Shard | None:
        """Return the shard of a key, or None when there is none; evicted shards close when the last user is done."""
        if self._process != os.getpid():
            self._reset()  # another thread of the parent may have held the lock
        with self._lock:
            if key in self._shards:
                self._shards.move_to_end(key)
                return self._shards[key]
        shard = self._load(key)
        with self._lock:
            self._shards[key] = shard
            while len(self._shards) > OPEN_SHARDS:
                self._shards.popitem(last=False)
        return shard
