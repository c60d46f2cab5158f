"""The window store: one Zarr v3 group of gridded weather, laid out so that training windows read whole chunks.

`data` is float32 (time, channel, latitude, longitude), NaN where missing, in shards of inner chunks. Beside it lie, per
time and channel:

    valid      bool      the step is there; missing steps keep their place on the regular time axis
    expver     uint8     0 unmarked, 1 final, 5 preliminary (ERA5T)
    source     uint64    first 8 bytes of the SHA-256 of the file it came from, 0 for none (see attribute `sources`)
    moments    float64   count, mean, sum of squared deviations, minimum, maximum of the step's values
    nan_cells  uint32    NaN values in each inner chunk; 0 where not valid

A block is one shard row: `shard_time` steps of everything. One `BlockWriter` writes all its files, which do not depend
on where in the store the block lies; a block that is missing has no files. Metadata come last.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numcodecs import VLenUTF8
from numpy.typing import NDArray

from configs.weather import StoreLayout
from storage.files import write_atomic
from storage.moments import COUNT, merge_moments, moments
from storage.shards import ChunkCodec, Shard, ShardCache, ShardWriter

FORMAT = 1
MOMENTS = ("count", "mean", "m2", "min", "max")
SIDE_ARRAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "nan_cells": ("uint32", ("cell_row", "cell_col")),
    "moments": ("float64", ("moment",)),
    "source": ("uint64", ()),
    "expver": ("uint8", ()),
    "valid": ("bool", ()),
}
"""Type, and dimensions after (time, channel). A block's `valid` is written last: where it is, the block is whole."""


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """Channels, grid and layout of a store; latitude and longitude in degrees, one value per row and column."""

    channels: tuple[str, ...]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    layout: StoreLayout

    @property
    def plane(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return len(self.latitude), len(self.longitude)

    @property
    def is_global(self) -> bool:
        """Say whether the column after the last one is the first one."""
        steps = np.diff(self.longitude)
        return len(steps) > 0 and np.allclose(steps, 360 / len(self.longitude), rtol=0, atol=1e-3)

    @property
    def chunk(self) -> tuple[int, int, int, int]:
        """Shape of an inner chunk."""
        return self.layout.chunk_time, len(self.channels), self.layout.chunk_space, self.layout.chunk_space

    @property
    def cells(self) -> tuple[int, int]:
        """Inner chunks that cover the grid, along rows and columns."""
        rows, cols = self.plane
        return math.ceil(rows / self.layout.chunk_space), math.ceil(cols / self.layout.chunk_space)

    @property
    def shard_chunks(self) -> tuple[int, int, int]:
        """Inner chunks of a shard along time, rows and columns; no more than cover a small grid."""
        rows, cols = self.layout.shard_chunks
        return self.layout.shard_time // self.layout.chunk_time, min(rows, self.cells[0]), min(cols, self.cells[1])

    @property
    def shards(self) -> tuple[int, int]:
        """Shards that cover the grid, along rows and columns."""
        (rows, cols), (_, high, wide) = self.cells, self.shard_chunks
        return math.ceil(rows / high), math.ceil(cols / wide)

    @property
    def codec(self) -> ChunkCodec:
        """How inner chunks are stored."""
        return ChunkCodec(self.layout.codec, self.layout.level, itemsize=4)

    def side_shape(self, name: str, steps: int) -> tuple[int, ...]:
        """Return the shape of a side array of so many steps."""
        extra = {"nan_cells": self.cells, "moments": (len(MOMENTS),)}.get(name, ())
        return (steps, len(self.channels), *extra)


def _side_codec(name: str) -> ChunkCodec:
    return ChunkCodec("zstd", 3, np.dtype(SIDE_ARRAYS[name][0]).itemsize)


def _side_path(name: str, block: int) -> str:
    return f"{name}/c/{block}/0" + "/0" * len(SIDE_ARRAYS[name][1])


def block_file_rename(path: str, block: int) -> str:
    """Return the path of the same file in another block: `("data/c/3/0/1/2", 7) => "data/c/7/0/1/2"`."""
    array, chunks, _, *rest = path.split("/")
    return "/".join([array, chunks, str(block), *rest])


class BlockWriter:
    """Writes all files of one block, slab by slab, holding little more than one slab however large the grid is.

    The bytes depend on the data and the geometry alone. Leaving the context without `finish` removes what was begun;
    a killed writer leaves `*.tmp` files, which the next writer of the block replaces.
    """

    def __init__(self, folder: Path, geometry: Geometry, block: int) -> None:
        self._folder = folder
        self._geometry = geometry
        self._block = block
        self._next_step = 0
        steps = geometry.layout.shard_time
        self._moments = np.zeros(geometry.side_shape("moments", steps))
        self._nan_cells = np.zeros(geometry.side_shape("nan_cells", steps), np.uint32)
        chunks = math.prod(geometry.shard_chunks)
        self._shards = {
            (i, j): ShardWriter(folder / f"data/c/{block}/0/{i}/{j}", chunks) for i, j in np.ndindex(geometry.shards)
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for shard in self._shards.values():
            shard.discard()

    def write_slab(self, first: int, data: NDArray[np.float32]) -> None:
        """Write up to `chunk_time` steps, (time, channel, latitude, longitude), from step `first` of the block on.

        `first` is a multiple of `chunk_time` and ascends from slab to slab; slabs left out stay NaN.
        """
        geometry, steps = self._geometry, len(data)
        chunk_time = geometry.layout.chunk_time
        assert data.dtype == np.float32
        assert data.shape[1:] == (len(geometry.channels), *geometry.plane)
        assert first % chunk_time == 0
        assert self._next_step <= first < first + steps <= min(first + chunk_time, geometry.layout.shard_time)
        self._next_step = first + chunk_time

        (rows, cols), (_, high, wide) = geometry.cells, geometry.shard_chunks
        by_cell = np.empty((rows, cols, *self._moments[:steps].shape))
        slab = first // chunk_time * high * wide
        for row, col in np.ndindex(rows, cols):
            values = self._cell(data, row, col)
            by_cell[row, col] = moments(values.reshape(steps, len(geometry.channels), -1))
            count = by_cell[row, col, ..., COUNT]
            self._nan_cells[first : first + steps, :, row, col] = math.prod(values.shape[2:]) - count
            if count.any():
                position = slab + row % high * wide + col % wide
                self._shards[row // high, col // wide].append(position, self._encode(values))
        self._moments[first : first + steps] = merge_moments(by_cell.reshape(-1, *by_cell.shape[2:]))

    def _cell(self, data: NDArray[np.float32], row: int, col: int) -> NDArray[np.float32]:
        size = self._geometry.layout.chunk_space
        return np.ascontiguousarray(data[:, :, row * size : (row + 1) * size, col * size : (col + 1) * size])

    def _encode(self, values: NDArray[np.float32]) -> bytes:
        if values.shape != self._geometry.chunk:
            chunk = np.full(self._geometry.chunk, np.nan, np.float32)
            steps, _, height, width = values.shape
            chunk[:steps, :, :height, :width] = values
            values = chunk
        return self._geometry.codec.encode(values)

    def finish(self, valid: NDArray[np.bool_], expver: NDArray[np.uint8], source: NDArray[np.uint64]) -> list[str]:
        """Complete every file of the block and return their paths relative to the store, as POSIX.

        Each argument is (shard_time, channel). Steps that are not valid must hold no values.
        """
        assert not self._moments[~valid, COUNT].any(), "a step with values is marked as missing"
        self._nan_cells[~valid] = 0
        arrays = {
            "nan_cells": self._nan_cells,
            "moments": self._moments,
            "source": source,
            "expver": expver,
            "valid": valid,
        }
        paths = [f"data/c/{self._block}/0/{i}/{j}" for i, j in self._shards]
        for shard in self._shards.values():
            shard.finish()
        for name, (dtype, _) in SIDE_ARRAYS.items():
            chunk = np.ascontiguousarray(arrays[name], dtype)
            assert chunk.shape == self._moments.shape[:2] + chunk.shape[2:]
            paths.append(_side_path(name, self._block))
            write_atomic(self._folder / paths[-1], _side_codec(name).encode(chunk))
        return paths


def write_metadata(folder: Path, geometry: Geometry, time: NDArray[np.datetime64], attrs: Mapping[str, Any]) -> None:
    """Write coordinates and metadata of a store whose blocks are written; the group's `zarr.json` comes last.

    `time` is the whole axis; `attrs` are JSON values (units, recipe, sources, cadence).
    """
    names = np.array(geometry.channels, object)
    seconds = np.asarray(time).astype("datetime64[s]").astype("<i8")
    for name, encoded in {
        "time": seconds.tobytes(),
        "channel": bytes(VLenUTF8().encode(names)),
        "latitude": np.asarray(geometry.latitude, "<f8").tobytes(),
        "longitude": np.asarray(geometry.longitude, "<f8").tobytes(),
    }.items():
        write_atomic(folder / name / "c" / "0", encoded)
    arrays = _array_metadata(geometry, len(seconds))
    for name, metadata in arrays.items():
        write_atomic(folder / name / "zarr.json", json.dumps(metadata, indent=1))
    group = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"millrace_window_store": FORMAT, **attrs},
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": arrays},
    }
    write_atomic(folder / "zarr.json", json.dumps(group, indent=1))


def _array_metadata(geometry: Geometry, steps: int) -> dict[str, dict[str, Any]]:
    """Return the `zarr.json` of every array of a store of so many time steps."""
    rows, cols = geometry.plane
    channels = len(geometry.channels)
    seconds = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian", "standard_name": "time"}
    raw = ChunkCodec("none", 1, itemsize=8).metadata()
    arrays = {
        "time": _array((steps,), (steps,), "int64", 0, raw, ("time",), seconds),
        "channel": _array((channels,), (channels,), "string", "", [{"name": "vlen-utf8"}], ("channel",)),
        "latitude": _array((rows,), (rows,), "float64", "NaN", raw, ("latitude",), {"units": "degrees_north"}),
        "longitude": _array((cols,), (cols,), "float64", "NaN", raw, ("longitude",), {"units": "degrees_east"}),
    }
    for name, (dtype, extra) in SIDE_ARRAYS.items():
        arrays[name] = _array(
            geometry.side_shape(name, steps),
            geometry.side_shape(name, geometry.layout.shard_time),
            dtype,
            False if dtype == "bool" else 0,
            _side_codec(name).metadata(),
            ("time", "channel", *extra),
        )
    per_time, high, wide = geometry.shard_chunks
    size = geometry.layout.chunk_space
    sharding = {
        "chunk_shape": geometry.chunk,
        "codecs": geometry.codec.metadata(),
        "index_codecs": [*raw, {"name": "crc32c"}],
        "index_location": "end",
    }
    arrays["data"] = _array(
        (steps, channels, rows, cols),
        (per_time * geometry.layout.chunk_time, channels, high * size, wide * size),
        "float32",
        "NaN",
        [{"name": "sharding_indexed", "configuration": sharding}],
        ("time", "channel", "latitude", "longitude"),
    )
    arrays["moments"]["attributes"] = {"moment": MOMENTS}
    return arrays


def _array(
    shape: Sequence[int],
    chunk: Sequence[int],
    dtype: str,
    fill: float | str,
    codecs: list[dict[str, Any]],
    dimensions: Sequence[str],
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": codecs,
        "dimension_names": dimensions,
        "attributes": attributes or {},
        "storage_transformers": [],
    }


class WindowStore:
    """A window store open for reading, by any thread and across forks and spawns; use `open`."""

    def __init__(
        self, folder: Path, geometry: Geometry, time: NDArray[np.datetime64], attrs: Mapping[str, Any]
    ) -> None:
        self.folder = folder
        self.geometry = geometry
        self.time = time
        self.attrs = attrs
        self._shards = ShardCache(self._load_shard)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the metadata of a store; `ValueError` when the folder is not a store of this format."""
        try:
            group = json.loads((folder / "zarr.json").read_text())
        except FileNotFoundError:
            raise ValueError(f"{folder} is no window store: it has no zarr.json; build the store first") from None
        attrs = group["attributes"]
        if attrs.get("millrace_window_store") != FORMAT:
            raise ValueError(f"{folder} is no window store of format {FORMAT}; build it again with this version")
        data = group["consolidated_metadata"]["metadata"]["data"]
        sharding = data["codecs"][0]["configuration"]
        chunk_time, _, size, _ = sharding["chunk_shape"]
        shard_time, _, high, wide = data["chunk_grid"]["configuration"]["chunk_shape"]
        compressor = sharding["codecs"][1]["configuration"] if len(sharding["codecs"]) > 1 else {}
        layout = StoreLayout(
            chunk_time=chunk_time,
            chunk_space=size,
            shard_time=shard_time,
            shard_chunks=(high // size, wide // size),
            codec=compressor.get("cname", "none"),
            level=compressor.get("clevel", 1),
        )

        def coordinate(name: str) -> bytes:
            return (folder / name / "c" / "0").read_bytes()

        geometry = Geometry(
            tuple(VLenUTF8().decode(coordinate("channel"))),
            np.frombuffer(coordinate("latitude"), "<f8"),
            np.frombuffer(coordinate("longitude"), "<f8"),
            layout,
        )
        return cls(folder, geometry, np.frombuffer(coordinate("time"), "<i8").view("datetime64[s]"), attrs)

    def __reduce__(self) -> tuple[Any, ...]:
        return WindowStore.open, (self.folder,)

    @property
    def channels(self) -> tuple[str, ...]:
        """Channel names, such as `u10` and `t@850`."""
        return self.geometry.channels

    @property
    def latitude(self) -> NDArray[np.float64]:
        """Latitude of the rows, in degrees north."""
        return self.geometry.latitude

    @property
    def longitude(self) -> NDArray[np.float64]:
        """Longitude of the columns, in degrees east."""
        return self.geometry.longitude

    def side(self, name: str, first: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Return `valid`, `expver`, `source`, `moments` or `nan_cells` of the steps from `first` to before `stop`."""
        stop = len(self.time) if stop is None else stop
        block_steps = self.geometry.layout.shard_time
        out = np.zeros(self.geometry.side_shape(name, stop - first), SIDE_ARRAYS[name][0])
        chunk = np.empty(self.geometry.side_shape(name, block_steps), out.dtype)
        for block, within, into in pieces(first, stop - first, block_steps):
            path = self.folder / _side_path(name, block)
            try:
                _side_codec(name).decode(path.read_bytes(), chunk)
            except FileNotFoundError:
                self._check_absent(block, path)
                continue
            except ValueError as error:
                raise ValueError(
                    f"{path} is damaged ({error}); `millrace verify --deep` finds all such files"
                ) from None
            out[into] = chunk[within]
        return out

    def _check_absent(self, block: int, path: Path) -> None:
        if (self.folder / _side_path("valid", block)).exists():
            raise ValueError(f"{path} is gone, though its block was written; `millrace verify` finds all such files")

    def _load_shard(self, key: tuple[int, int, int]) -> Shard | None:
        block, i, j = key
        path = self.folder / f"data/c/{block}/0/{i}/{j}"
        try:
            return Shard(path, math.prod(self.geometry.shard_chunks))
        except FileNotFoundError:
            self._check_absent(block, path)
            return None

    def read(self, t: int, y: int, x: int, shape: tuple[int, int, int]) -> NDArray[np.float32]:
        """Return a box of (time, height, width) at step, row and column as (channel, time, height, width).

        Missing values are NaN. On a global grid the box may run past the last column, into the first ones.
        """
        steps, height, width = shape
        rows, cols = self.geometry.plane
        inside = min(t, y, x) >= 0 and t + steps <= len(self.time) and y + height <= rows and x < cols
        if not inside or width > cols or (x + width > cols and not self.geometry.is_global):
            raise ValueError(
                f"window of {steps} steps, {height} x {width} cells at step {t}, row {y}, column {x} is not inside "
                f"the store ({len(self.time)} steps, {rows} x {cols} cells)"
            )
        chunk_time, channels, size, _ = self.geometry.chunk
        out = np.empty((channels, steps, height, width), np.float32)
        chunk = np.empty(self.geometry.chunk, np.float32)
        across = pieces(x, width, size, cols)
        source: NDArray[Any] = chunk
        target: NDArray[Any] = out.transpose(1, 0, 2, 3)
        if all(x_in == slice(0, size) for _, x_in, _ in across):  # whole chunk rows copy faster as one item each
            item = np.dtype((np.void, size * 4))
            source, target = chunk.view(item), out.view(item).transpose(1, 0, 2, 3)
            across = [(col, slice(0, 1), slice(k, k + 1)) for k, (col, _, _) in enumerate(across)]
        codec, (per_time, high, wide) = self.geometry.codec, self.geometry.shard_chunks
        down = pieces(y, height, size)
        for chunk_t, t_in, t_out in pieces(t, steps, chunk_time):
            block, slab = divmod(chunk_t, per_time)
            for row, y_in, y_out in down:
                for col, x_in, x_out in across:
                    shard = self._shards.get((block, row // high, col // wide))
                    position = (slab * high + row % high) * wide + col % wide
                    if shard is None or not shard.read(position, codec, chunk):
                        chunk.fill(np.nan)
                    target[t_out, :, y_out, x_out] = source[t_in, :, y_in, x_in]
        return out


def pieces(first: int, length: int, size: int, period: int | None = None) -> list[tuple[int, slice, slice]]:
    """Cut a range by chunks of `size`: the chunk, where in it, and where in the range; wraps after `period`.

    `pieces(3, 4, 5) => [(0, slice(3, 5), slice(0, 2)), (1, slice(0, 2), slice(2, 4))]`
    """
    out = []
    done = 0
    while done < length:
        at = first + done if period is None else (first + done) % period
        chunk, offset = divmod(at, size)
        count = min(size - offset, length - done, size if period is None else period - at)
        out.append((chunk, slice(offset, offset + count), slice(done, done + count)))
        done += count
    return out
