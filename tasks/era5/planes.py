"""Reading single planes exactly and cheaply: canonical float32 fields out of files with any chunk layout.

HDF5 chunks that are long in time, or hold several levels, would be decoded once per plane. They are decoded once,
a row of chunks at a time: into memory when one block needs a whole row and it is small enough, else into raw files in
a scratch folder that all workers of a machine share.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import netCDF4
import numpy as np
from numpy.typing import NDArray

from storage.hashing import digest
from tasks.era5.catalog import Variable
from tasks.era5.channels import Channel
from tasks.era5.netcdf import NETCDF_LOCK, Decoder, UnusableError, decoder, open_netcdf, read_box
from tasks.era5.scratch import Scratch, ScratchFile
from tasks.era5.timeline import Source, Timeline

_ROW_BYTES = 2**30
_ROW_STEPS = 16
_TILE_BYTES = 2**26
_OPEN_FILES = 32


@dataclass(frozen=True, slots=True)
class _Row:
    """Decoded planes of one variable that share HDF5 chunks, in stored orientation, one after the other."""

    source: Source
    facts: Variable
    layer: int
    first: int
    steps: int
    levels: tuple[int, ...]
    """Indices along the level dimension; (0,) where there is none."""
    shape: tuple[int, int]

    @property
    def key(self) -> str:
        """Name of the planes by their content."""
        return digest([self.source.member.sha256, self.facts.name, self.layer, self.first, self.steps, self.levels])

    @property
    def planes(self) -> int:
        """Number of planes."""
        return self.steps * len(self.levels)

    def offset(self, plane: int, row: int = 0, column: int = 0) -> int:
        """Return where a value lies, in bytes."""
        height, width = self.shape
        return 4 * ((plane * height + row) * width + column)

    def plane(self, step: int, level: int) -> int:
        """Return the index of a plane by its indices in the source."""
        return (step - self.first) * len(self.levels) + self.levels.index(level)


class PlaneReader:
    """Reads planes of a timeline; a context manager that keeps few files open.

    `paths` maps the SHA-256 of each source to its file; any number of processes may share `scratch`. A plane is
    named by its channel and its CANDIDATE record.
    """

    def __init__(self, timeline: Timeline, paths: Mapping[str, Path], scratch: Path) -> None:
        self._timeline = timeline
        self._paths = paths
        self._scratch = Scratch(scratch)
        self._memory: dict[str, NDArray[np.float32]] = {}
        self._files: OrderedDict[str, netCDF4.Dataset] = OrderedDict()
        self._decoders: dict[tuple[str, str], Decoder | None] = {}
        self._wanted: dict[str, set[int | None]] = defaultdict(set)
        for channel in timeline.channels:
            self._wanted[channel.variable].add(channel.level)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scratch.close()
        while self._files:
            self._close_oldest()

    def prepare(self, planes: Iterable[tuple[Channel, NDArray]], room: int) -> None:
        """Decode the chunks behind these planes, at most `room` bytes of them into memory.

        Chunks that other blocks need too are decoded to files, together with the workers that want them.
        """
        rows: dict[str, _Row] = {}
        steps: dict[str, set[int]] = defaultdict(set)
        for channel, record in planes:
            if row := self._row(channel, record):
                rows[row.key] = row
                steps[row.key].add(int(record["step"]))
        shared = {}
        for key, row in rows.items():
            if len(steps[key]) == row.steps and row.offset(row.planes) <= room:
                room -= row.offset(row.planes)
                self._memory[key] = self._decode_to_memory(row)
            else:
                shared[key] = ScratchFile(row.offset(row.planes), partial(self._decode_to_file, row))
        self._scratch.prepare(shared)

    def read(self, channel: Channel, record: NDArray, out: NDArray[np.float32]) -> None:
        """Fill `out` (latitude, longitude; contiguous) with a prepared plane; NaN where values are missing."""
        orientation = self.source(record).member.orientation
        row = self._row(channel, record)
        if row is None:
            source, facts = self.source(record), self._facts(channel, record)
            step, level = int(record["step"]), _level_index(facts, channel)
            box = self._box(source, facts, slice(step, step + 1), slice(level, level + 1), int(record["layer"]))
            orientation.place(box[0, 0], out)
            return
        plane = row.plane(int(record["step"]), _level_index(row.facts, channel))
        if row.key in self._memory:
            orientation.place(self._memory[row.key][plane], out)
            return
        stored = out if orientation.canonical else np.empty_like(out)
        self._scratch.read(row.key, row.offset(plane), stored)
        if stored is not out:
            orientation.place(stored, out)

    def source(self, record: NDArray) -> Source:
        """Return the source of a CANDIDATE record."""
        return self._timeline.sources[int(record["source"])]

    def _facts(self, channel: Channel, record: NDArray) -> Variable:
        return next(v for v in self.source(record).member.variables if v.name == channel.variable)

    def _row(self, channel: Channel, record: NDArray) -> _Row | None:
        """Return the row of chunks that holds a plane; None where it has chunks or storage of its own."""
        source, facts = self.source(record), self._facts(channel, record)
        chunk = dict(zip(facts.dimensions, facts.chunks or (), strict=False))
        times, levels = chunk.get("time", 1), chunk.get("level", 1)
        if times * levels == 1:
            return None
        grid = self._timeline.grid
        shape = (grid.latitude.count, grid.longitude.count)
        step, group = int(record["step"]), _level_index(facts, channel) // levels
        wanted = tuple(
            index
            for index, level in enumerate(facts.levels or (None,))
            if index // levels == group and level in self._wanted[channel.variable]
        )
        most = max(1, _ROW_BYTES // (4 * shape[0] * shape[1] * len(wanted)))
        if times <= most:
            span = times * max(1, min(most, _ROW_STEPS) // times)
            begin, end = step // span * span, step // span * span + span
        else:  # chunks so long that they are decoded in parts, once per part
            chunk_begin = step // times * times
            begin = chunk_begin + (step - chunk_begin) // most * most
            end = min(begin + most, chunk_begin + times)
        steps = min(end, source.member.length) - begin
        return _Row(source, facts, int(record["layer"]), begin, steps, wanted, shape)

    def _decode_to_memory(self, row: _Row) -> NDArray[np.float32]:
        """Return a row's planes."""
        planes = np.empty((row.steps, len(row.levels), *row.shape), np.float32)
        for rows, columns, box in self._decoded_tiles(row):
            if box.shape == planes.shape:
                planes = box
            else:
                planes[:, :, rows, columns] = box
        return planes.reshape(row.planes, *row.shape)

    def _decode_to_file(self, row: _Row, descriptor: int) -> None:
        """Write a row's planes to a file."""
        for rows, columns, box in self._decoded_tiles(row):
            for number, tile in enumerate(box.reshape(-1, *box.shape[2:])):
                if tile.shape[1] == row.shape[1]:
                    _write(descriptor, tile, row.offset(number, rows.start))
                else:
                    for line, values in enumerate(tile, rows.start):
                        _write(descriptor, values, row.offset(number, line, columns.start))

    def _decoded_tiles(self, row: _Row) -> Iterator[tuple[slice, slice, NDArray]]:
        """Decode a row of chunks tile by tile, each chunk once; yield where and (steps, levels, rows, columns)."""
        steps = slice(row.first, row.first + row.steps)
        levels = slice(row.levels[0], row.levels[-1] + 1)
        chosen = [level - row.levels[0] for level in row.levels]
        everything = len(chosen) == levels.stop - levels.start
        for rows, columns in _tiles(row):
            box = self._box(row.source, row.facts, steps, levels, row.layer, rows, columns)
            yield rows, columns, box if everything else box[:, chosen]

    def _box(
        self,
        source: Source,
        facts: Variable,
        steps: slice,
        levels: slice,
        layer: int,
        rows: slice = slice(None),
        columns: slice = slice(None),
    ) -> NDArray:
        """Return decoded values (steps, levels, rows, columns) in stored orientation."""
        selection = {
            "time": steps,
            "level": levels,
            "expver": slice(layer, layer + 1),
            "latitude": rows,
            "longitude": columns,
        }
        with _naming(source.name, facts.name):
            variable = self._open(source).variables[facts.name]
            key = (source.member.sha256, facts.name)
            if key not in self._decoders:
                self._decoders[key] = decoder(variable)
            decode = self._decoders[key]
            stored = read_box(variable, facts.dimensions, selection)
        return decode(stored) if decode else stored

    def _open(self, source: Source) -> netCDF4.Dataset:
        sha256 = source.member.sha256
        if sha256 not in self._files:
            if len(self._files) >= _OPEN_FILES:
                self._close_oldest()
            self._files[sha256] = open_netcdf(self._paths[sha256])
        self._files.move_to_end(sha256)
        return self._files[sha256]

    def _close_oldest(self) -> None:
        sha256, dataset = self._files.popitem(last=False)
        for key in [key for key in self._decoders if key[0] == sha256]:
            del self._decoders[key]
        with NETCDF_LOCK:
            dataset.close()


@contextlib.contextmanager
def _naming(source: str, variable: str) -> Iterator[None]:
    try:
        yield
    except UnusableError as error:
        raise ValueError(f"{source} {error}") from error
    except FileNotFoundError as error:
        raise ValueError(f"{source} is no longer at {error.filename}; put it back or run again") from error
    except (OSError, RuntimeError, LookupError) as error:
        raise ValueError(
            f"{source}: {variable} cannot be read ({error}); the file is damaged, download it again"
        ) from error


def _level_index(facts: Variable, channel: Channel) -> int:
    return 0 if channel.level is None or facts.levels is None else facts.levels.index(channel.level)


def _tiles(row: _Row) -> Iterator[tuple[slice, slice]]:
    """Cut a plane into tiles of whole chunks, as wide as the memory for one tile of all planes allows."""
    height, width = row.shape
    chunk = dict(zip(row.facts.dimensions, row.facts.chunks or (), strict=True))
    cells = _TILE_BYTES // (4 * row.planes)
    rows, columns = chunk["latitude"], chunk["longitude"]
    if rows * width <= cells:
        rows, columns = cells // (rows * width) * rows, width
    else:
        columns = max(1, cells // (rows * columns)) * columns
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield slice(top, min(top + rows, height)), slice(left, min(left + columns, width))


def _write(descriptor: int, values: NDArray, offset: int) -> None:
    view = np.ascontiguousarray(values, np.float32).data.cast("B")
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count
