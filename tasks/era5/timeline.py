"""One regular time axis, one grid and one list of channels out of many files; which file step may fill which slot.

A slot is one time step of the store. Slots are numbered from 1970, and the axis starts at a multiple of the
shard length, so that data added before or after never move the borders of the blocks that exist.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import not_
from typing import Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from configs.weather import Recipe, StoreLayout
from tasks.era5.catalog import ERA5T, FINAL, FileScan, Member, Variable
from tasks.era5.channels import Channel, resolve_channels
from tasks.era5.grid import Grid
from tasks.era5.renamed import names_to_use, renamed

CANDIDATE = np.dtype([("source", "i4"), ("step", "i4"), ("layer", "i1"), ("version", "u1")])
"""A file step that may fill a slot: index of the source, of the time in it, and of the expver layer (-1: none)."""

_MAX_SLOTS = 10_000_000
_DAY = 86_400
_SHORTEST_MONTH = 27 * _DAY
_STAMP_TOLERANCE = 2 * _DAY


@dataclass(frozen=True, slots=True)
class Source:
    """One distinct NetCDF content and the name that messages use for it."""

    name: str
    member: Member


@dataclass(frozen=True, slots=True)
class Cadence:
    """Regular times: every `step` seconds, or one per calendar month, `phase` seconds after the slot begins."""

    unit: Literal["seconds", "months"]
    step: int
    phase: int

    def slots(self, seconds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the slot numbers since 1970 of times in seconds since 1970."""
        if self.unit == "seconds":
            return (seconds - self.phase) // self.step
        return seconds.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)

    def seconds(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the times of slots."""
        if self.unit == "seconds":
            return slots * self.step + self.phase
        return slots.astype("datetime64[M]").astype("datetime64[s]").astype(np.int64) + self.phase

    def __str__(self) -> str:
        return "calendar months" if self.unit == "months" else f"{self.step} s"


@dataclass(frozen=True, slots=True)
class Gap:
    """A run of slots without data for some channels; times in seconds since 1970, both included."""

    first: int
    last: int
    steps: int
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """What the store will hold and where each of its planes may come from."""

    channels: tuple[Channel, ...]
    grid: Grid
    cadence: Cadence
    first_slot: int
    """Absolute number of slot 0; a multiple of the shard length."""
    length: int
    """Slots up to and including the last one with data."""
    sources: tuple[Source, ...]
    """Sorted by SHA-256."""
    rows: NDArray
    """CANDIDATE records, sorted by channel, slot, source, step."""
    offsets: NDArray[np.int64]
    """(channels, length + 1): where each slot's records begin in `rows`."""
    duplicates: int
    """Planes that more than one file step offers, beyond ERA5T that a final one replaces."""
    replaced: int
    """Planes of ERA5T that a final one replaces."""
    identical: tuple[str, ...]
    """Files whose content another file has too, as `<name> (same as <name>)`."""
    skipped: tuple[str, ...]
    """Files and variables that were left out, each with its reason."""

    @property
    def times(self) -> NDArray[np.int64]:
        """The time of every slot in seconds since 1970."""
        return self.cadence.seconds(self.first_slot + np.arange(self.length))

    def candidates(self, channel: int, slot: int) -> NDArray:
        """Return the CANDIDATE records of one plane; none outside the axis or where data are missing."""
        if not 0 <= slot < self.length:
            return self.rows[:0]
        return self.rows[self.offsets[channel, slot] : self.offsets[channel, slot + 1]]

    def coverage(self) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        """Return (slots, channels): whether a file offers the plane, and its version (FINAL, ERA5T or 0)."""
        valid = np.diff(self.offsets, axis=1) > 0
        versions = np.zeros(valid.shape, np.uint8)
        versions[valid] = self.rows["version"][self.offsets[:, :-1][valid]]
        return valid.T, versions.T

    def gaps(self) -> list[Gap]:
        """List the runs of slots, from the first with data on, in which the same channels are missing."""
        valid, _ = self.coverage()
        begin = int(valid.any(axis=1).argmax())
        missing, times = ~valid[begin:], self.times[begin:]
        cuts = np.flatnonzero((missing[1:] != missing[:-1]).any(axis=1)) + 1
        runs = zip([0, *cuts.tolist()], [*cuts.tolist(), len(missing)], strict=True)
        names = np.array([channel.name for channel in self.channels])
        return [
            Gap(int(times[a]), int(times[b - 1]), b - a, tuple(names[missing[a]].tolist()))
            for a, b in runs
            if missing[a].any()
        ]


def utc(time: int) -> str:
    """Write a time for messages: `0 => 1970-01-01T00:00 UTC`."""
    return f"{np.datetime64(time, 's').astype('datetime64[m]')} UTC"


def build_timeline(
    scans: Sequence[FileScan], names: Mapping[str, str], recipe: Recipe, layout: StoreLayout
) -> Timeline:
    """Resolve scans to one timeline; `names` maps the SHA-256 of a raw file to the name that messages use.

    Scans with a problem are left out and listed in `skipped`. `ValueError` where files do not fit together
    (grids, units, times) or the recipe does not fit them (unknown variable or level, undeclared accumulation).
    """
    sources, identical, skipped = _distinct_sources(scans, names)
    used = names_to_use([s.member for s in sources], [entry.variable for entry in recipe.variables])
    sources = [Source(s.name, renamed(s.member, used)) for s in sources]
    channels = resolve_channels([(s.name, s.member) for s in sources], recipe, skipped)
    wanted = {channel.variable for channel in channels}
    wants = [not wanted.isdisjoint(v.name for v in s.member.variables) for s in sources]
    skipped += [f"{s.name} holds none of the recipe's variables" for s in compress(sources, map(not_, wants))]
    sources = list(compress(sources, wants))
    grid = _common_grid(sources)
    cadence = _declared_cadence(sources, recipe.step_hours) if recipe.step_hours else _infer_cadence(sources, wanted)
    slots = [cadence.slots(s.member.seconds()) for s in sources]
    first = min(int(s.min()) for s in slots) // layout.shard_time * layout.shard_time
    length = max(int(s.max()) for s in slots) + 1 - first
    if length > _MAX_SLOTS:
        raise ValueError(f"the files span {length:,} steps of {cadence}; leave out the file with odd times")
    rows, offsets, replaced = _candidates(sources, channels, [s - first for s in slots], length)
    return Timeline(
        channels=tuple(channels),
        grid=grid,
        cadence=cadence,
        first_slot=first,
        length=length,
        sources=tuple(sources),
        rows=rows,
        offsets=offsets,
        duplicates=int((np.diff(offsets, axis=1) > 1).sum()),
        replaced=replaced,
        identical=tuple(identical),
        skipped=tuple(skipped),
    )


def _distinct_sources(scans: Sequence[FileScan], names: Mapping[str, str]) -> tuple[list[Source], list[str], list[str]]:
    by_sha: dict[str, Source] = {}
    identical: list[str] = []
    skipped: list[str] = []
    for scan in {s.sha256: s for s in sorted(scans, key=lambda s: names[s.sha256])}.values():
        name = names[scan.sha256]
        skipped += [f"{name}: {note}" for note in scan.skipped]
        if scan.problem:
            skipped.append(f"{name} {scan.problem}")
        for member in scan.members:
            label = f"{name} ({member.entry})" if member.entry else name
            if member.sha256 in by_sha:
                identical.append(f"{label} (same as {by_sha[member.sha256].name})")
            else:
                by_sha[member.sha256] = Source(label, member)
    if not by_sha:
        raise ValueError(f"no usable NetCDF file: {'; '.join(skipped) or 'none was given'}")
    return [by_sha[sha] for sha in sorted(by_sha)], identical, skipped


def _common_grid(sources: Sequence[Source]) -> Grid:
    first, *others = sources
    for other in others:
        if not other.member.grid.matches(first.member.grid):
            raise ValueError(
                f"{first.name} has {first.member.grid}, but {other.name} has {other.member.grid}; one store has "
                f"one grid: regrid one of them or ingest them into two stores"
            )
    return first.member.grid


def _declared_cadence(sources: Sequence[Source], hours: int) -> Cadence:
    """Return the declared step, with the phase that most times have; a time off it is a `ValueError`."""
    step = hours * 3600
    times = np.unique(np.concatenate([s.member.seconds() for s in sources]))
    phases = times % step
    if (phases != phases[0]).any():
        raise ValueError(_odd_time(times, step, sources))
    return Cadence("seconds", step, int(phases[0]))


def _infer_cadence(sources: Sequence[Source], wanted: Collection[str]) -> Cadence:
    """Return the largest regular step that meets every time."""
    times = np.unique(np.concatenate([s.member.seconds() for s in sources]))
    if len(times) == 1:
        return Cadence("seconds", 3600, int(times[0] % 3600))
    steps = np.diff(times)
    if (phase := _monthly_phase(times)) is not None:
        return Cadence("months", 1, phase)
    _require_one_minute(sources)
    step = int(np.gcd.reduce(steps))
    usual = Counter(steps.tolist()).most_common(1)[0][0]
    if step < 3600 and step != usual:
        raise ValueError(_odd_time(times, usual, sources))
    _require_one_clock(sources, wanted, step)
    return Cadence("seconds", step, int(times[0] % step))


def _monthly_phase(times: NDArray[np.int64]) -> int | None:
    """Return how far into its month every time lies, 0 where that differs; None where times are not monthly.

    Monthly means are stamped at the begin, in the middle or at the end of their month, at any hour.
    """
    months = times.astype("datetime64[s]").astype("datetime64[M]")
    begins, ends = (m.astype("datetime64[s]").astype(np.int64) for m in (months, months + 1))
    if len(np.unique(months)) < len(times) or np.diff(times).min() < _SHORTEST_MONTH:
        return None
    offsets = times - begins
    if len(np.unique(offsets)) == 1:
        return int(offsets[0])
    near = [np.abs(times - place).max() for place in (begins, (begins + ends) / 2, ends)]
    return 0 if min(near) <= _STAMP_TOLERANCE or np.ptp(offsets // _DAY) == 0 else None


def _require_one_clock(sources: Sequence[Source], wanted: Collection[str], step: int) -> None:
    """Refuse sources whose steps never meet: each would be all gaps on the other's axis."""
    clocks: dict[tuple[int, int], str] = {}
    for variable in sorted(wanted):
        holders = [s for s in sources if any(v.name == variable for v in s.member.variables)]
        times = np.unique(np.concatenate([s.member.seconds() for s in holders]))
        own = int(np.gcd.reduce(np.diff(times))) if len(times) > 1 else 0
        if own in (0, step):
            return
        clocks.setdefault((own, int(times[0] % own)), f"{variable} of {holders[0].name}")
    _two_clocks(list(clocks.values()))


def _require_one_minute(sources: Sequence[Source]) -> None:
    """Refuse hourly sources of which one counts from the full hour, and another one from half past."""
    minutes: dict[int, str] = {}
    for source in sources:
        times = source.member.seconds()
        if len(times) > 1 and not (np.diff(times) % 3600).any():
            minutes.setdefault(int(times[0] % 3600), f"{source.name} at minute {times[0] % 3600 // 60}")
    if len(minutes) > 1:
        _two_clocks(list(minutes.values()))


def _two_clocks(described: Sequence[str]) -> NoReturn:
    raise ValueError(
        f"{described[0]} and {described[-1]} are two sources, whose times do not meet; ingest them into two stores, or "
        f"bring them to the same times"
    )


def _odd_time(times: NDArray[np.int64], usual: int, sources: Sequence[Source]) -> str:
    phase = Counter((times % usual).tolist()).most_common(1)[0][0]
    odd = times[times % usual != phase][0]
    owner = next(s for s in sources if odd in s.member.seconds())
    return (
        f"{owner.name} has the time {utc(int(odd))}, which does not fit the step of {usual} s; "
        f"correct its time coordinate or leave it out"
    )


def _candidates(
    sources: Sequence[Source], channels: Sequence[Channel], slots: Sequence[NDArray[np.int64]], length: int
) -> tuple[NDArray, NDArray[np.int64], int]:
    """Return the CANDIDATE records of all channels, their offsets, and the number of replaced ERA5T planes."""
    plain = [_file_steps(i, source.member) for i, source in enumerate(sources)]
    holders: dict[str, list[tuple[int, Variable]]] = defaultdict(list)
    for i, source in enumerate(sources):
        for variable in source.member.variables:
            holders[variable.name].append((i, variable))
    rows: list[NDArray] = []
    offsets = np.zeros((len(channels), length + 1), np.int64)
    replaced = total = 0
    for index, channel in enumerate(channels):
        having = [(i, v) for i, v in holders[channel.variable] if channel.level in (v.levels or (None,))]
        parts = [_layer_steps(plain[i], sources[i].member, v, channel.level) for i, v in having]
        records = np.concatenate(parts)
        slot = np.concatenate([slots[i][part["step"]] for (i, _), part in zip(having, parts, strict=True)])
        final = np.zeros(length, bool)
        final[slot[records["version"] == FINAL]] = True
        superseded = (records["version"] == ERA5T) & final[slot]
        replaced += len(np.unique(slot[superseded]))
        records, slot = records[~superseded], slot[~superseded]
        order = np.lexsort((records["layer"], records["step"], records["source"], slot))
        rows.append(records[order])
        offsets[index, 1:] = np.cumsum(np.bincount(slot, minlength=length))
        offsets[index] += total
        total += len(records)
    return np.concatenate(rows), offsets, replaced


def _file_steps(index: int, member: Member) -> NDArray:
    versions = member.versions_by_time()
    records = np.zeros(len(versions), CANDIDATE)
    records["source"], records["layer"] = index, -1
    records["step"], records["version"] = np.arange(len(versions)), versions
    return records


def _layer_steps(plain: NDArray, member: Member, variable: Variable, level: int | None) -> NDArray:
    """Return a variable's records; with an expver dimension those of the layers that have data."""
    if not variable.present:
        return plain
    found: Iterable[NDArray] = (
        _with_layer(plain[first : first + count], presence.layer, member.layers[presence.layer])
        for presence in variable.present
        if presence.level == level
        for first, count in presence.runs
    )
    return np.concatenate([plain[:0], *found])


def _with_layer(records: NDArray, layer: int, version: int) -> NDArray:
    layered = records.copy()
    layered["layer"], layered["version"] = layer, version
    return layered
