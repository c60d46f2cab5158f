"""The stage that looks into every raw file: what it holds, by content and never by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from storage.assets import Asset, Unit
from storage.files import write_atomic
from storage.hashing import canonical_json
from storage.raw import RawInput, require_unchanged
from tasks.era5.catalog import FileScan, scan_file
from tasks.era5.inputs import raw_files
from tasks.stage import Job, StageResult, stage
from tasks.units import UnitOutput

MEMBERS = "members"


@stage("era5_catalog")
def era5_catalog(job: Job, *, raw: Asset | RawInput, on_bad_file: Literal["error", "skip"]) -> StageResult:
    """Read the headers of all raw files and unpack archives; unusable files are named with what is wrong."""
    files = raw_files(raw)
    units = [job.unit(sha[:24], sha, (path, sha, files.stamps[sha])) for sha, path in files.paths.items()]
    records = job.map(_scan, units, fan_out_from=500)  # a header takes milliseconds, a worker's start a second
    scans = [FileScan.model_validate(record.result) for record in records]
    bad = [scan for scan in scans if scan.problem]
    sentences = [f"{files.names[scan.sha256]} {scan.problem}" for scan in bad]
    usable = any(scan.members for scan in scans)
    if sentences and (on_bad_file == "error" or not usable):
        hint = "; remove them, or set source.on_bad_file=skip" if usable else ""
        raise ValueError(f"{len(bad)} of {len(scans)} raw files cannot be used: {'; '.join(sentences)}{hint}")
    for sentence in sentences:
        job.message(f"left out: {sentence}")
    write_atomic(job.folder / "catalog.json", canonical_json(scans))
    return StageResult(
        counts={
            "files": len(scans),
            "copies_left_out": files.copies,
            "unusable_left_out": sum(not scan.members for scan in bad),
            "parts_left_out": sum(len(scan.skipped) + bool(scan.problem and scan.members) for scan in scans),
            "found_and_not_used": _told(raw),
            "variables": len({v.name for s in scans for m in s.members for v in m.variables}),
        }
    )


def _told(raw: Asset | RawInput) -> str:
    """Say what lay beside the files and was not used: how much, and the first of it."""
    passed = raw.passed if isinstance(raw, RawInput) else ()
    return f"{len(passed)}, e.g. {passed[0]}" if passed else "0"


def _scan(folder: Path, unit: Unit) -> UnitOutput:
    path, sha, stamp = unit.payload
    scan = scan_file(path, sha, folder / MEMBERS)
    require_unchanged(path, stamp)
    extracted = [f"{MEMBERS}/{m.sha256}.nc" for m in scan.members if m.entry is not None]
    return UnitOutput(extracted, scan.model_dump(mode="json"))


def load_scans(catalog: Path) -> list[FileScan]:
    """Read the scans of a published catalog."""
    return [FileScan.model_validate(scan) for scan in json.loads((catalog / "catalog.json").read_bytes())]
