"""Blocks: the runs of `shard_time` slots that are written whole, and the identity that names their bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.bitround import BitRound
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from configs.weather import StoreLayout
from storage.window_store import BlockWriter, Geometry
from tasks.era5.accumulation import Accumulation, needs_previous
from tasks.era5.catalog import ERA5T
from tasks.era5.channels import Channel
from tasks.era5.planes import PlaneReader
from tasks.era5.timeline import Timeline, utc

_MEMORY_BYTES = 9 * 2**26
"""What a worker may hold of a block at once, decoded: its slab, and chunks that no other block needs."""


class BlockReport(BaseModel):
    """What one block got; a plane is one time step of one channel."""

    model_config = ConfigDict(frozen=True)

    files: tuple[str, ...]
    """Paths relative to the store."""
    valid: int
    """Planes that hold data."""
    missing: int
    """Planes that no file has."""
    preliminary: int
    """Valid planes of ERA5T."""
    compared: int
    """Planes that several file steps had, all equal."""
    without_previous: int
    """Planes that are not valid because their rate needs a step that no file has."""

    @property
    def counts(self) -> dict[str, int]:
        """Everything but the files."""
        return self.model_dump(exclude={"files"})


def list_blocks(timeline: Timeline, layout: StoreLayout) -> list[int]:
    """Return the numbers of the blocks that have any data; block 0 begins at slot 0 of the timeline."""
    valid, _ = timeline.coverage()
    return np.unique(np.flatnonzero(valid.any(axis=1)) // layout.shard_time).tolist()


def block_identity(timeline: Timeline, layout: StoreLayout, block: int) -> dict[str, Any]:
    """Return everything that shapes a block's bytes, as JSON values: equal identities are equal blocks.

    Neither paths nor the block's place in the store are part of it; times follow from the sources' content.
    """
    spans = [_span(timeline, layout, block, channel) for channel in timeline.channels]
    used = [timeline.rows[timeline.offsets[c, a] : timeline.offsets[c, b]] for c, (a, b) in enumerate(spans)]
    sources = np.unique(np.concatenate([records["source"] for records in used]))
    distinct: dict[bytes, int] = {}
    candidates: list[list[list[list[int]]]] = []
    channels = []
    for index, (channel, (first, last), records) in enumerate(zip(timeline.channels, spans, used, strict=True)):
        bounds = timeline.offsets[index, first : last + 1] - timeline.offsets[index, first]
        number = distinct.setdefault(bounds.tobytes() + records.tobytes(), len(candidates))
        if number == len(candidates):
            local = np.searchsorted(sources, records["source"])
            triples = np.stack([local, records["step"], records["layer"]], axis=1).tolist()
            candidates.append([triples[a:b] for a, b in pairwise(bounds)])
        recipe = channel.recipe.model_dump(mode="json", exclude={"levels"})
        channels.append({"level": channel.level, "recipe": recipe, "candidates": number})
    return {
        "channels": channels,
        "candidates": candidates,
        "sources": [timeline.sources[i].member.sha256 for i in sources],
        "grid": timeline.grid.model_dump(mode="json"),
        "layout": layout.model_dump(mode="json"),
        "cadence": str(timeline.cadence),
    }


def write_block(
    timeline: Timeline,
    layout: StoreLayout,
    paths: Mapping[str, Path],
    folder: Path,
    block: int,
    scratch: Path,
) -> BlockReport:
    """Read one block's planes and write its shards below `folder`.

    `paths` maps the SHA-256 of each source to its file; `scratch` may be shared by all workers of a machine.
    `ValueError` names the files that cannot be read, disagree, or contradict the recipe.
    """
    store = geometry(timeline, layout)
    with PlaneReader(timeline, paths, scratch) as reader, BlockWriter(folder, store, block) as writer:
        filler = _Filler(timeline, layout, block, reader)
        for first, slab in filler.slabs():
            writer.write_slab(first, slab)
        files = writer.finish(filler.valid, filler.versions, filler.identities)
    return filler.report(files)


def geometry(timeline: Timeline, layout: StoreLayout) -> Geometry:
    """Return the shape of the store that a timeline makes."""
    return Geometry(
        tuple(channel.name for channel in timeline.channels),
        timeline.grid.latitude.coordinates(),
        timeline.grid.longitude.coordinates(),
        layout,
    )


def _span(timeline: Timeline, layout: StoreLayout, block: int, channel: Channel) -> tuple[int, int]:
    """Return the slots (first, past the last) that a channel's block is made of, a predecessor included."""
    first = block * layout.shard_time
    last = min(first + layout.shard_time, timeline.length)
    time = int(timeline.cadence.seconds(np.array(timeline.first_slot + first)))
    return max(0, first - needs_previous(channel, timeline.cadence, time)), last


class _Filler:
    """Fills the slabs of one block and keeps the account of its planes."""

    def __init__(self, timeline: Timeline, layout: StoreLayout, block: int, reader: PlaneReader) -> None:
        self._timeline = timeline
        self._layout = layout
        self._reader = reader
        self._first = block * layout.shard_time
        self._spans = [_span(timeline, layout, block, channel) for channel in timeline.channels]
        self._accumulations = {
            index: Accumulation(channel, timeline.cadence)
            for index, channel in enumerate(timeline.channels)
            if channel.recipe.accumulation
        }
        self._grid = (timeline.grid.latitude.count, timeline.grid.longitude.count)
        shape = (layout.shard_time, len(timeline.channels))
        self.valid = np.zeros(shape, bool)
        self.versions = np.zeros(shape, np.uint8)
        self.identities = np.zeros(shape, np.uint64)
        self._compared = self._without_previous = 0

    def slabs(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (first step in the block, planes (steps, channels, latitude, longitude)) where there are any.

        The array is used again for the next slab.
        """
        length, channels = self._layout.chunk_time, range(len(self._timeline.channels))
        slab = np.empty((length, len(channels), *self._grid), np.float32)
        self._prepare(slab.nbytes)
        for first in range(0, self._layout.shard_time, length):
            steps = range(first, first + length)
            if not any(len(self._candidates(step, channel)) for step in steps for channel in channels):
                continue
            for step in steps:
                for channel in channels:
                    self._fill(step, channel, slab[step - first, channel])
            yield first, slab
        for accumulation in self._accumulations.values():
            accumulation.finish()

    def report(self, files: Sequence[str]) -> BlockReport:
        """Sum up what was filled."""
        steps = min(self._layout.shard_time, self._timeline.length - self._first)
        valid = int(self.valid.sum())
        return BlockReport(
            files=tuple(files),
            valid=valid,
            missing=steps * len(self._timeline.channels) - valid - self._without_previous,
            preliminary=int((self.versions == ERA5T).sum()),
            compared=self._compared,
            without_previous=self._without_previous,
        )

    def _prepare(self, slab_bytes: int) -> None:
        """Decode what several planes share, and read the predecessors of the first step."""
        planes = (
            (channel, record)
            for index, channel in enumerate(self._timeline.channels)
            for slot in range(*self._spans[index])
            for record in self._timeline.candidates(index, slot)
        )
        self._reader.prepare(planes, room=_MEMORY_BYTES - slab_bytes)
        for index, (first, _) in enumerate(self._spans):
            plane = np.empty(self._grid, np.float32)
            if first < self._first and self._read(-1, index, plane) is not None:
                self._accumulations[index].remember(self._time(-1), plane)

    def _candidates(self, step: int, index: int) -> NDArray:
        return self._timeline.candidates(index, self._first + step)

    def _time(self, step: int) -> int:
        timeline = self._timeline
        return int(timeline.cadence.seconds(np.array(timeline.first_slot + self._first + step)))

    def _fill(self, step: int, index: int, out: NDArray[np.float32]) -> None:
        """Fill one plane as it is stored; NaN where it is missing."""
        record = self._read(step, index, out)
        if record is None:
            out.fill(np.nan)
            return
        self._compared += len(self._candidates(step, index)) > 1
        channel, source, time = self._timeline.channels[index], self._reader.source(record), self._time(step)
        accumulation = self._accumulations.get(index)
        if accumulation and not accumulation.convert(time, out, source.name):
            out.fill(np.nan)
            self._without_previous += 1
            return
        _apply_nan_policy(channel, time, source.name, out)
        if channel.recipe.keepbits is not None:
            _round_bits(out, channel.recipe.keepbits)
        self.valid[step, index] = True
        self.versions[step, index] = record["version"]
        self.identities[step, index] = int.from_bytes(bytes.fromhex(source.member.sha256[:16]), "big")

    def _read(self, step: int, index: int, out: NDArray[np.float32]) -> NDArray | None:
        """Fill one plane with raw values and return its record; candidates that disagree are a `ValueError`."""
        candidates = self._candidates(step, index)
        if not len(candidates):
            return None
        channel = self._timeline.channels[index]
        chosen, *others = candidates
        self._reader.read(channel, chosen, out)
        for other in others:
            second = np.empty_like(out)
            self._reader.read(channel, other, second)
            if not np.array_equal(out, second, equal_nan=True):
                raise ValueError(self._disagreement(channel, self._time(step), (chosen, other), (out, second)))
        return chosen

    def _disagreement(
        self, channel: Channel, time: int, records: tuple[NDArray, NDArray], planes: tuple[NDArray, NDArray]
    ) -> str:
        first, second = (self._reader.source(record).name for record in records)
        who = f"{first} twice holds" if first == second else f"{first} and {second} both hold"
        difference = np.abs(planes[0].astype(np.float64) - planes[1])
        finite = difference[np.isfinite(difference)]
        how = f"they differ by up to {finite.max():g}" if finite.any() else "they are missing in different places"
        return f"{who} {channel.name} at {utc(time)}, and {how}; leave out the file that is wrong"


def _apply_nan_policy(channel: Channel, time: int, file: str, plane: NDArray[np.float32]) -> None:
    policy = channel.recipe.nan
    if policy == "keep":
        return
    missing = np.isnan(plane)
    if policy != "error":
        plane[missing] = policy
    elif missing.any():
        raise ValueError(
            f"{file}: {channel.name} has {missing.sum():,} NaN at {utc(time)}, and recipe.variables refuses them; "
            f"set nan: keep or a number for {channel.variable}"
        )


def _round_bits(plane: NDArray[np.float32], keepbits: int) -> None:
    """Round to `keepbits` mantissa bits in place; NaN and infinity stay as they are."""
    finite = np.isfinite(plane)
    rounded = BitRound(keepbits).decode(BitRound(keepbits).encode(plane))
    np.copyto(plane, rounded.reshape(plane.shape), where=finite)
