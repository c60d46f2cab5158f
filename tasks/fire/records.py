"""The stage that turns an archive into records, one file per fire, each decoded and checked once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import pi
from pathlib import Path
from typing import Any, Literal

from configs.fire_data import Decoding, Tokens
from storage.assets import Asset, Unit, UnitRecord
from storage.delimited import DELIMITERS
from storage.files import write_atomic
from storage.hashing import canonical_json, digest
from storage.raw import RawInput, told
from tasks.fire.archive import LANDSCAPE, Archive, FireFiles, Listing, list_fires
from tasks.fire.record import FOLDER, write_record
from tasks.fire.wind import FASTEST
from tasks.stage import Job, StageResult, stage

LANDSCAPE_FILE = "landscape.safetensors"
INDEX = "fires.json"
NAME = "sequence_"
SHOWN = 3
FEW = 3
"""Fewer fires may well have winds from one direction."""


@stage("fire_records")
def fire_records(
    job: Job,
    *,
    raw: Asset | RawInput,
    names: str,
    decoding: Decoding,
    tokens: Tokens,
    on_broken: Literal["error", "skip"],
) -> StageResult:
    """Decode, check and pool every fire; broken ones are named with what is wrong. `names` is `archive_names(raw)`."""
    from tasks.fire.landscape import read_landscape

    archive = Archive.open(raw)
    listing = list_fires(archive, decoding)
    landscape = read_landscape(archive.root / LANDSCAPE, decoding)
    for note in (*listing.notes, *landscape.notes):
        job.message(note)
    landscape.save(job.folder / LANDSCAPE_FILE)
    description = job.workspace.scratch / f"work-{names[:16]}.json"
    work = {
        "root": str(archive.root),
        "landscape": str(job.folder / LANDSCAPE_FILE),
        "decoding": decoding,
        "tokens": tokens,
    }
    write_atomic(description, canonical_json(work))
    land = digest(sorted(f"{n} {sha}" for n, sha in archive.files.items() if n.startswith(LANDSCAPE[:-4])))
    shaped_by = digest([land, decoding, tokens])
    units = []
    for fire in listing.fires:
        used = {name: archive.files[name] for name in (*fire.frames, *fire.targets)}
        identity = [shaped_by, fire_identity(archive, fire)]
        units.append(job.unit(fire.name, identity, (description, fire, used)))
    records = job.map(write_record, units, rename=_file_name, fan_out_from=12)
    facts = {"patch": tokens.patch, "decoding": decoding.model_dump(mode="json")}
    return _result(job, listing, records, on_broken, facts)


def why_left_out(folder: Path, name: str) -> str:
    """Return why a fire, by name or number, is not among these records; "" when nothing is known of it."""
    broken = json.loads((folder / INDEX).read_bytes())["broken"]
    digits = name.removeprefix(NAME)
    numbers = {int(own.removeprefix(NAME)): reason for own, reason in broken.items()}
    return numbers.get(int(digits), "") if digits.isdecimal() else ""


def fire_identity(archive: Archive, fire: FireFiles) -> dict[str, Any]:
    """Return what shapes a record besides the landscape and the configuration: contents and the box, no names."""
    return {
        "frames": [archive.files[name] for name in fire.frames],
        "targets": [archive.files[name] for name in fire.targets],
        "weather": archive.files[fire.weather],
        "box": fire.box,
    }


def _file_name(name: str, unit: Unit) -> str:
    return f"{FOLDER}/{unit.id}.safetensors"


def _result(
    job: Job, listing: Listing, records: Sequence[UnitRecord], on_broken: str, facts: dict[str, Any]
) -> StageResult:
    broken = dict(listing.broken) | {r.id: r.result["problem"] for r in records if "problem" in r.result}
    whole = [(fire, r) for fire, r in zip(listing.fires, records, strict=True) if r.id not in broken]
    total = len(listing.fires) + len(listing.broken)
    if broken and (on_broken == "error" or not whole):
        hint = "; repair or remove them, or set source.on_broken=skip" if whole else ""
        raise ValueError(f"{len(broken)} of {total} fires cannot be used: {'; '.join(broken.values())}{hint}")
    for sentence in broken.values():
        job.message(f"left out: {sentence}")
    index = facts | {"fires": [{"name": f.name, "number": f.number} for f, _ in whole], "broken": broken}
    write_atomic(job.folder / INDEX, canonical_json(index))
    kept = {fire.name: record.result for fire, record in whole}
    for line in _wind_report(kept):
        job.message(line)
    steps = [record.result["steps"] for _, record in whole]
    named = {"left_out": told([*broken.values()])} if broken else {}
    return StageResult(
        counts=named
        | {
            "fires": len(whole),
            "broken_left_out": len(broken),
            "frames": sum(steps),
            "samples": sum(steps) - len(steps),
            "burnt_pixels": sum(record.result["burnt"] for _, record in whole),
            "wind_rows_not_measured": len(_unmeasured(kept)),
            "fires_without_wind": sum(facts["windless"] for facts in kept.values()),
        }
    )


def _wind_report(fires: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line on every way in which weather files differ from plain ones, with the first places."""
    if rows := _unmeasured(fires):
        yield (
            f"{len(rows)} rows of wind are not measured (values are missing, or speeds outside of 0 to {FASTEST} and "
            f"directions outside of 0 to 360): {_first(rows)}"
        )
    if windless := [name for name, facts in fires.items() if facts["windless"]]:
        yield f"{len(windless)} of {len(fires)} fires have no usable wind: {_first(windless)}"
    highest = max((facts["highest_direction"] for facts in fires.values()), default=0)
    if 1 < highest <= 2 * pi and len(fires) >= FEW:
        yield f"no wind comes from more than {highest:.4g} degrees: if directions are radians, write degrees"
    for delimiter in sorted({facts["delimiter"] for facts in fires.values()} - {DELIMITERS[","]}):
        names = [name for name, facts in fires.items() if facts["delimiter"] == delimiter]
        yield f"weather of {len(names)} fires is read with {delimiter} between its columns: {_first(names)}"


def _unmeasured(fires: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row for facts in fires.values() for row in facts["unmeasured"]))


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
