"""Reading planes exactly and cheaply: canonical float32 fields out of files with any chunk layout.

HDF5 chunks that are long in time, or hold several levels, would be decoded once per plane. They are decoded once,
a row of chunks at a time: into memory when one block needs a whole row and it is small enough, else into raw files in
a scratch folder that all workers of a machine share. Of small planes everything that a block needs is read in few
pieces, into memory.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tasks.era5.channels import Channel
from tasks.era5.rows import Holding, Row, Steps, is_small
from tasks.era5.scratch import Scratch, ScratchFile
from tasks.era5.source_files import SourceFiles
from tasks.era5.timeline import Timeline


class _Place(NamedTuple):
    """Where planes that may be read together lie: in a variable of a source, at the levels of one group."""

    source: int
    variable: str
    layer: int
    group: int


class PlaneReader:
    """Reads planes of a timeline; a context manager that keeps scratch files open.

    Any number of readers, in any number of processes, may share `scratch`. A plane is named by its channel and its
    CANDIDATE record.
    """

    def __init__(self, timeline: Timeline, files: SourceFiles, scratch: Path) -> None:
        self._timeline = timeline
        self._files = files
        self._scratch = Scratch(scratch)
        self._shape = (timeline.grid.latitude.count, timeline.grid.longitude.count)
        self._rows: dict[_Place, list[Row]] = defaultdict(list)
        self._holdings: dict[tuple[int, str], Holding] = {}
        self._wanted: dict[str, set[int | None]] = defaultdict(set)
        for channel in timeline.channels:
            self._wanted[channel.variable].add(channel.level)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scratch.close()

    def prepare(self, planes: Iterable[tuple[Channel, NDArray]], room: int) -> None:
        """Decode what lies behind these planes, each a channel and any number of its records, where that saves work.

        At most `room` bytes are decoded into memory. Chunks that other blocks need too are decoded to files, together
        with the workers that want them.
        """
        shared: list[tuple[_Place, Row, Steps]] = []
        for place, wanted in self._wanted_steps(planes).items():
            holding = self._holding(place.source, place.variable)
            for row, steps in holding.rows(place.layer, place.group, wanted):
                if len(steps) == row.steps and row.size <= room:
                    room -= row.size
                    self._rows[place].append(replace(row, values=self._decode(row)))
                elif holding.chunked:
                    shared.append((place, row, steps))
        self._scratch.prepare(
            {row.key: ScratchFile(row.size, partial(self._decode_to_file, row)) for _, row, _ in shared}
        )
        for place, row, steps in shared:
            part = replace(row, first=int(steps[0]), steps=int(steps[-1] - steps[0]) + 1)
            if is_small(self._shape) and part.size <= room:
                room -= part.size
                values = np.empty((part.steps, len(part.levels), *part.shape), np.float32)
                self._read_scratch(row, part.first, part.levels[0], values)
                row = replace(part, values=values)
            self._rows[place].append(row)

    def read(self, channel: Channel, records: NDArray, out: NDArray[np.float32]) -> None:
        """Fill `out` (planes, latitude, longitude) with prepared planes in the order of the records; NaN where missing.

        Each plane of `out` must be contiguous.
        """
        for first, stop in _stretches(records):
            self._read_stretch(channel, records[first], out[first:stop])

    def _read_stretch(self, channel: Channel, record: NDArray, out: NDArray[np.float32]) -> None:
        """Fill `out` with consecutive steps of one source, from that of the record on."""
        place, level = self._place(channel, record)
        orientation = self._timeline.sources[place.source].member.orientation
        step, stop = int(record["step"]), int(record["step"]) + len(out)
        while step < stop:
            rest = out[step - stop :]
            row = next((row for row in self._rows.get(place, ()) if row.first <= step < row.stop), None)
            if row is not None and row.values is None and orientation.canonical:
                self._read_scratch(row, step, level, rest[0])
                step += 1
            else:
                stored = self._stored(place, row, step, stop, level)
                orientation.place(stored, rest[: len(stored)])
                step += len(stored)

    def _stored(self, place: _Place, row: Row | None, step: int, stop: int, level: int) -> NDArray[np.float32]:
        """Return planes in stored orientation, from a step on: as many up to `stop` as are in memory, at least one."""
        if row is None:
            holding = self._holding(place.source, place.variable)
            return self._decode(holding.row(place.layer, step, step + 1, (level,)))[:, 0]
        if row.values is not None:
            return row.values[step - row.first : stop - row.first, row.levels.index(level)]
        plane = np.empty((1, *row.shape), np.float32)
        self._read_scratch(row, step, level, plane)
        return plane

    def _read_scratch(self, row: Row, step: int, level: int, out: NDArray[np.float32]) -> None:
        """Fill `out`, of any number of planes, from a plane of a row in a scratch file on."""
        self._scratch.read(row.key, row.offset(row.plane(step, level)), out)

    def _wanted_steps(self, planes: Iterable[tuple[Channel, NDArray]]) -> dict[_Place, Steps]:
        """Return the ascending steps that these planes take from each place."""
        found: dict[_Place, list[Steps]] = defaultdict(list)
        for channel, records in planes:
            ordered = records[np.lexsort((records["step"], records["layer"], records["source"]))]
            for first, stop in _stretches(ordered):
                place, _ = self._place(channel, ordered[first])
                found[place].append(ordered["step"][first:stop])
        return {place: np.unique(np.concatenate(steps)) for place, steps in found.items()}

    def _place(self, channel: Channel, record: NDArray) -> tuple[_Place, int]:
        """Return where a plane lies, and its index along the level dimension."""
        source = int(record["source"])
        level, group = self._holding(source, channel.variable).level(channel.level)
        return _Place(source, channel.variable, int(record["layer"]), group), level

    def _holding(self, source: int, variable: str) -> Holding:
        key = (source, variable)
        if key not in self._holdings:
            wanted = self._wanted[variable]
            self._holdings[key] = Holding.of(self._timeline.sources[source], variable, wanted, self._shape)
        return self._holdings[key]

    def _decode(self, row: Row) -> NDArray[np.float32]:
        """Return a row's planes (steps, levels, rows, columns)."""
        planes = np.empty((row.steps, len(row.levels), *row.shape), np.float32)
        for rows, columns, box in self._decoded_tiles(row):
            if box.shape == planes.shape:
                planes = box
            else:
                planes[:, :, rows, columns] = box
        return planes

    def _decode_to_file(self, row: Row, descriptor: int) -> None:
        """Write a row's planes to a file."""
        for rows, columns, box in self._decoded_tiles(row):
            for number, tile in enumerate(box.reshape(-1, *box.shape[2:])):
                if tile.shape[1] == row.shape[1]:
                    _write(descriptor, tile, row.offset(number, rows.start))
                else:
                    for line, values in enumerate(tile, rows.start):
                        _write(descriptor, values, row.offset(number, line, columns.start))

    def _decoded_tiles(self, row: Row) -> Iterator[tuple[slice, slice, NDArray[np.float32]]]:
        """Decode a row tile by tile, each chunk once; yield where and (steps, levels, rows, columns)."""
        selection = {
            "time": slice(row.first, row.stop),
            "level": slice(row.levels[0], row.levels[-1] + 1),
            "expver": slice(row.layer, row.layer + 1),
        }
        chosen = [level - row.levels[0] for level in row.levels]
        for rows, columns in row.tiles():
            box = self._files.read(row.source, row.facts, selection | {"latitude": rows, "longitude": columns})
            yield rows, columns, box if len(chosen) == box.shape[1] else box[:, chosen]


def _stretches(records: NDArray) -> Iterator[tuple[int, int]]:
    """Cut records into consecutive steps of one source and layer: (first, past the last)."""
    same = (records["source"][1:] == records["source"][:-1]) & (records["layer"][1:] == records["layer"][:-1])
    breaks = np.flatnonzero(~(same & (np.diff(records["step"]) == 1))) + 1
    return pairwise([0, *breaks.tolist(), len(records)] if len(records) else [])


def _write(descriptor: int, values: NDArray, offset: int) -> None:
    view = np.ascontiguousarray(values, np.float32).data.cast("B")
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count
