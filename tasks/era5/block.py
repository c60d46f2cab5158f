"""Blocks: the runs of `shard_time` slots that are written whole, and the identity that names their bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from tasks.era5.source_files import SourceFiles
from tasks.era5.timeline import Source, Timeline, utc

_MEMORY_BYTES = 9 * 2**26
"""What a worker may hold of a block at once, decoded: its slabs, and chunks that no other block needs."""

_LARGEST = 1e14
"""No variable of the weather comes near it; what is beyond stands for missing, or came from a division by zero."""

_CODES = tuple(sign * np.float32(n) for n in (999, 9999, 99999, 999999, 999.9, 9999.9, 32767) for sign in (-1, 1))
_CODES += (np.float32(-32768),)
"""Values that people write for missing ones."""
_FAR = 5
"""A code stands for missing where it lies farther from all values than so many times their range."""

_RUN_BYTES = 2**18
"""How much of one channel is read and converted at a time, at least a plane: small planes are cheap in company."""


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
    changes: dict[str, Any]
    """By accumulated channel, how its values change over the day; see `Evidence`."""

    @property
    def counts(self) -> dict[str, int]:
        """Everything that is a number of planes."""
        return self.model_dump(exclude={"files", "changes"})


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
    files: SourceFiles,
    folder: Path,
    block: int,
    scratch: Path,
) -> BlockReport:
    """Read one block's planes and write its shards below `folder`.

    `scratch` may be shared by all workers of a machine. `ValueError` names the files that cannot be read, disagree, or
    contradict the recipe.
    """
    store = geometry(timeline, layout)
    with PlaneReader(timeline, files, scratch) as reader, BlockWriter(folder, store, block) as writer:
        filler = _Filler(timeline, layout, block, reader)
        for first, slab in filler.slabs():
            writer.write_slab(first, slab)
        written = writer.finish(filler.valid, filler.versions, filler.identities)
    return filler.report(written)


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
            index: Accumulation(channel, timeline.cadence, _quantum(timeline, channel))
            for index, channel in enumerate(timeline.channels)
            if channel.recipe.accumulation
        }
        self._grid = (timeline.grid.latitude.count, timeline.grid.longitude.count)
        self._run = max(1, _RUN_BYTES // (4 * self._grid[0] * self._grid[1]))
        shape = (layout.shard_time, len(timeline.channels))
        self.valid = np.zeros(shape, bool)
        self.versions = np.zeros(shape, np.uint8)
        self.identities = np.zeros(shape, np.uint64)
        self._compared = self._without_previous = 0

    def slabs(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (first step in the block, planes (steps, channels, latitude, longitude)) where there are any.

        The array is used again for later slabs.
        """
        length, steps = self._layout.chunk_time, self._layout.shard_time
        at_once = min(steps, max(1, self._run // length) * length)
        planes = np.empty((at_once, len(self._timeline.channels), *self._grid), np.float32)
        self._prepare(planes.nbytes)
        for first in range(0, steps, at_once):
            stop = min(first + at_once, steps)
            wanted = [slab for slab in range(first, stop, length) if self._any(slab, slab + length)]
            if wanted:
                self._fill(first, planes[: stop - first])
            for slab in wanted:
                yield slab, planes[slab - first : slab - first + length]
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
            changes={
                self._timeline.channels[index].name: accumulation.evidence.report()
                for index, accumulation in self._accumulations.items()
            },
        )

    def _prepare(self, held: int) -> None:
        """Decode what several planes share, and read the predecessors of the first step; `held` bytes are in use."""
        timeline = self._timeline
        wanted = (
            (channel, timeline.rows[timeline.offsets[index, first] : timeline.offsets[index, last]])
            for index, (channel, (first, last)) in enumerate(zip(timeline.channels, self._spans, strict=True))
        )
        self._reader.prepare(wanted, room=_MEMORY_BYTES - held)
        for index, (first, _) in enumerate(self._spans):
            if first < self._first and len(timeline.candidates(index, first)):
                plane = np.empty((1, *self._grid), np.float32)
                self._read(index, -1, plane)
                self._accumulations[index].remember(self._time(-1), plane[0])

    def _slots(self, first: int, stop: int) -> NDArray[np.int64]:
        """Return the timeline's slots from one step of the block to another, both included; none lies past its end."""
        return np.minimum(self._first + np.arange(first, stop + 1), self._timeline.length)

    def _any(self, first: int, stop: int) -> bool:
        """Say whether any channel has data from one step to before another."""
        begin, end = self._slots(first, stop)[[0, -1]]
        return bool((self._timeline.offsets[:, begin] < self._timeline.offsets[:, end]).any())

    def _time(self, step: int) -> int:
        timeline = self._timeline
        return int(timeline.cadence.seconds(np.array(timeline.first_slot + self._first + step)))

    def _fill(self, first: int, planes: NDArray[np.float32]) -> None:
        """Fill all channels at the steps from `first` on as they are stored; NaN where they are missing."""
        for begin in range(0, len(planes), self._run):
            run, step = planes[begin : begin + self._run], first + begin
            counts = np.diff(self._timeline.offsets[:, self._slots(step, step + len(run))])
            self._compared += int((counts > 1).sum())
            for index, present in enumerate(counts > 0):
                run[~present, index] = np.nan
                for a, b in _true_runs(present):
                    self._fill_present(index, step + a, run[a:b, index])

    def _fill_present(self, index: int, first: int, out: NDArray[np.float32]) -> None:
        """Fill the planes of one channel at consecutive steps that all have data."""
        channel, steps = self._timeline.channels[index], slice(first, first + len(out))
        records = self._read(index, first, out)
        sources = [self._timeline.sources[source] for source in records["source"].tolist()]
        self._require_plausible(channel, first, out, sources)
        valid = self._convert(index, first, out, sources)
        if channel.recipe.nan != "keep":
            self._replace_nan(channel, first, out, sources, valid)
        if channel.recipe.keepbits is not None:
            _round_bits(out, channel.recipe.keepbits)
        identities = np.array([int(source.member.sha256[:16], 16) for source in sources], np.uint64)
        self.valid[steps, index] = valid
        self.versions[steps, index] = np.where(valid, records["version"], 0)
        self.identities[steps, index] = np.where(valid, identities, 0)

    def _read(self, index: int, first: int, out: NDArray[np.float32]) -> NDArray:
        """Fill planes with raw values and return their records; candidates that disagree are a `ValueError`."""
        channel, rows = self._timeline.channels[index], self._timeline.rows
        offsets = self._timeline.offsets[index, self._slots(first, first + len(out))]
        begins, counts = offsets[:-1], np.diff(offsets)
        self._reader.read(channel, rows[begins], out)
        for number in range(1, int(counts.max())):
            steps = np.flatnonzero(counts > number)
            chosen, others = out if len(steps) == len(out) else out[steps], rows[begins[steps] + number]
            second = np.empty_like(chosen)
            self._reader.read(channel, others, second)
            if not np.array_equal(chosen, second, equal_nan=True):
                k = next(k for k in range(len(steps)) if not np.array_equal(chosen[k], second[k], equal_nan=True))
                records = rows[begins[steps[k]]], others[k]
                raise ValueError(
                    self._disagreement(channel, self._time(first + int(steps[k])), records, (chosen[k], second[k]))
                )
        return rows[begins]

    def _require_plausible(
        self, channel: Channel, first: int, out: NDArray[np.float32], sources: Sequence[Source]
    ) -> None:
        """Refuse infinities, and values so large that they are fill values which no attribute marks."""
        if (wrong := (np.abs(out) > _LARGEST) | _codes(out)).any():
            k, row, column = (int(n[0]) for n in np.nonzero(wrong))
            raise ValueError(
                f"{sources[k].name}: {channel.name} has the value {out[k, row, column]:g} at "
                f"{utc(self._time(first + k))}; if it stands for missing, mark it (`ncatted -a missing_value,...`), "
                f"else repair or leave out the file"
            )

    def _convert(
        self, index: int, first: int, out: NDArray[np.float32], sources: Sequence[Source]
    ) -> NDArray[np.bool_]:
        """Turn raw values into what is stored and say which planes are; those without a predecessor become NaN."""
        valid = np.ones(len(out), bool)
        if accumulation := self._accumulations.get(index):
            for k, (plane, source) in enumerate(zip(out, sources, strict=True)):
                valid[k] = accumulation.convert(self._time(first + k), plane, source.name)
            out[~valid] = np.nan
            self._without_previous += int((~valid).sum())
        return valid

    def _replace_nan(
        self,
        channel: Channel,
        first: int,
        out: NDArray[np.float32],
        sources: Sequence[Source],
        valid: NDArray[np.bool_],
    ) -> None:
        """Fill NaN of valid planes as the recipe says; `ValueError` where it refuses them."""
        missing = np.isnan(out) & valid[:, None, None]
        if channel.recipe.nan != "error":
            out[missing] = channel.recipe.nan
        elif missing.any():
            k = int(missing.any(axis=(1, 2)).argmax())
            raise ValueError(
                f"{sources[k].name}: {channel.name} has {missing[k].sum():,} NaN at {utc(self._time(first + k))}, and "
                f"recipe.variables refuses them; set nan: keep or a number for {channel.variable}"
            )

    def _disagreement(
        self, channel: Channel, time: int, records: tuple[NDArray, NDArray], planes: tuple[NDArray, NDArray]
    ) -> str:
        first, second = (self._timeline.sources[record["source"]].name for record in records)
        who = f"{first} twice holds" if first == second else f"{first} and {second} both hold"
        difference = np.abs(planes[0].astype(np.float64) - planes[1])
        finite = difference[np.isfinite(difference)]
        how = f"they differ by up to {finite.max():g}" if finite.any() else "they are missing in different places"
        return f"{who} {channel.name} at {utc(time)}, and {how}; leave out the file that is wrong"


def _quantum(timeline: Timeline, channel: Channel) -> float:
    """Return the coarsest step between stored values that any source has."""
    variables = (v for s in timeline.sources for v in s.member.variables if v.name == channel.variable)
    return max((v.quantum for v in variables), default=0.0)


def _true_runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return where runs of True begin and end: `[True, False, True, True] => [(0, 1), (2, 4)]`."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    return [(a, b) for a, b in edges.reshape(-1, 2).tolist()]


def _round_bits(planes: NDArray[np.float32], keepbits: int) -> None:
    """Round to `keepbits` mantissa bits in place; NaN and infinity stay as they are."""
    finite = np.isfinite(planes)
    rounded = BitRound(keepbits).decode(BitRound(keepbits).encode(planes))
    np.copyto(planes, rounded.reshape(planes.shape), where=finite)


def _codes(planes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return where planes (steps, rows, columns) hold a code for missing that lies far from all of their values."""
    found = np.zeros(planes.shape, bool)
    ends = (np.fmin.reduce(planes, (1, 2), initial=np.inf), np.fmax.reduce(planes, (1, 2), initial=-np.inf))
    for end in ends:
        for k in np.flatnonzero(np.isin(end, _CODES)):
            others = planes[k][(planes[k] != end[k]) & ~np.isnan(planes[k])]
            if len(others) and np.abs(others - end[k]).min() > _FAR * np.ptp(others):
                found[k] |= planes[k] == end[k]
    return found
