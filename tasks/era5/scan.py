"""The stage that looks into every raw file: what it holds, by content and never by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from storage.assets import Asset, Unit
from storage.files import write_atomic
from storage.hashing import canonical_json
from storage.raw import RawInput, require_unchanged, told
from tasks.era5.catalog import FileScan, scan_file
from tasks.era5.inputs import raw_files
from tasks.stage import Job, StageResult, stage
from tasks.units import UnitOutput

MEMBERS = "members"


@stage("era5_catalog")
def era5_catalog(
    job: Job,
    *,
    raw: Asset | RawInput,
    on_bad_file: Literal["error", "skip"],
    named: Sequence[str] = (),
    wanted: Sequence[str] = (),
) -> StageResult:
    """Read the headers of all raw files and unpack archives; unusable files are named with what is wrong.

    `named` are the contents of files that the user named one by one: of these, everything is meant, unless `wanted`
    lists variables.
    """
    files = raw_files(raw)
    units = [job.unit(sha[:24], sha, (path, sha, files.stamps[sha])) for sha, path in files.paths.items()]
    records = job.map(_scan, units, fan_out_from=500)  # a header takes milliseconds, a worker's start a second
    scans = [FileScan.model_validate(record.result) for record in records]
    bad = [scan for scan in scans if scan.problem]
    sentences = [f"{files.names[scan.sha256]} {scan.problem}" for scan in bad]
    partly = [scan for scan in scans if scan.sha256 in named and not scan.problem and _is_meant(scan, wanted)]
    if on_bad_file == "error":
        sentences += [f"{files.names[scan.sha256]} {_partly(scan)}" for scan in partly]
    usable = any(scan.members for scan in scans)
    if sentences and (on_bad_file == "error" or not usable):
        hint = "; remove them, or set source.on_bad_file=skip" if usable else ""
        raise ValueError(f"{len(sentences)} of {len(scans)} raw files cannot be used: {'; '.join(sentences)}{hint}")
    for sentence in sentences:
        job.message(f"left out: {sentence}")
    write_atomic(job.folder / "catalog.json", canonical_json(scans))
    left_out = sentences + [f"{files.names[scan.sha256]}: {note}" for scan in scans for note in scan.skipped]
    counts = {
        "files": len(scans),
        "copies_left_out": files.copies,
        "unusable_left_out": sum(not scan.members for scan in bad),
        "parts_left_out": sum(len(scan.skipped) + bool(scan.problem and scan.members) for scan in scans),
        "variables": len({v.name for s in scans for m in s.members for v in m.variables}),
    }
    return StageResult(counts=counts | ({"left_out": told(left_out)} if left_out else {}))


def _is_meant(scan: FileScan, wanted: Sequence[str]) -> bool:
    """Whether what lies on a second grid or in a group of a file is wanted, and its main grid does not have it."""
    on_grid = {variable.name for member in scan.members for variable in member.variables}
    return bool(set(scan.apart) & (set(wanted) - on_grid) if wanted else scan.apart)


def _partly(scan: FileScan) -> str:
    on_grid = sorted({variable.name for member in scan.members for variable in member.variables})
    return (
        f"holds more than one grid: {'; '.join(scan.skipped)}; or list in recipe.variables what is wanted of the rest "
        f"({', '.join(on_grid)})"
    )


def _scan(folder: Path, unit: Unit) -> UnitOutput:
    path, sha, stamp = unit.payload
    scan = scan_file(path, sha, folder / MEMBERS)
    require_unchanged(path, stamp)
    extracted = [f"{MEMBERS}/{m.sha256}.nc" for m in scan.members if m.entry is not None]
    return UnitOutput(extracted, scan.model_dump(mode="json"))


def load_scans(catalog: Path) -> list[FileScan]:
    """Read the scans of a published catalog."""
    return [FileScan.model_validate(scan) for scan in json.loads((catalog / "catalog.json").read_bytes())]
