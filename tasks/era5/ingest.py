"""The stage that turns raw ERA5 files into a window store, one time block at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from configs.weather import Recipe, StoreLayout
from storage.assets import Asset, Unit, UnitRecord
from storage.files import write_atomic
from storage.hashing import canonical_json, digest
from storage.raw import RawInput
from storage.window_store import block_file_rename, write_metadata
from tasks.era5.accumulation import Evidence
from tasks.era5.block import block_identity, geometry, list_blocks, write_block
from tasks.era5.inputs import raw_files
from tasks.era5.scan import MEMBERS, load_scans
from tasks.era5.source_files import SourceFiles
from tasks.era5.timeline import Timeline, build_timeline
from tasks.stage import Job, StageResult, stage
from tasks.units import UnitOutput


@dataclass(frozen=True, slots=True)
class Work:
    """What every block needs; written down once, so that it does not travel with each unit."""

    timeline: Timeline
    layout: StoreLayout
    files: SourceFiles


@stage("era5_windows")
def era5_windows(
    job: Job, *, raw: Asset | RawInput, catalog: Asset, recipe: Recipe, layout: StoreLayout
) -> StageResult:
    """Write a sharded Zarr v3 store of all channels; blocks whose sources are unchanged are taken over."""
    description = _describe(job, raw, catalog, recipe, layout)
    work = _load(description)
    timeline = work.timeline
    for sentence in timeline.skipped:
        job.message(f"left out: {sentence}")
    units = [
        job.unit(
            f"block-{timeline.first_slot // layout.shard_time + block}",
            block_identity(timeline, layout, block),
            (description, job.workspace.scratch, block),
        )
        for block in list_blocks(timeline, layout)
    ]
    with closing(work.files):
        records = job.map(_write, units, rename=lambda name, unit: block_file_rename(name, unit.payload[2]))
    forms = _forms(timeline, records)
    for name, form in forms.items():
        job.message(f"{name} holds {form}")
    write_metadata(
        job.folder, geometry(timeline, layout), timeline.times.astype("datetime64[s]"), _attributes(timeline, recipe)
    )
    return StageResult(counts=_counts(timeline, records) | {f"form {name}": form for name, form in forms.items()})


def _describe(job: Job, raw: Asset | RawInput, catalog: Asset, recipe: Recipe, layout: StoreLayout) -> Path:
    files = raw_files(raw)
    work = {
        "catalog": str(catalog.folder),
        "paths": {sha: str(path) for sha, path in files.paths.items()},
        "stamps": files.stamps,
        "names": files.names,
        "recipe": recipe,
        "layout": layout,
    }
    path = job.workspace.scratch / f"work-{digest(work)[:16]}.json"
    write_atomic(path, canonical_json(work))
    return path


@lru_cache(maxsize=1)
def _load(description: Path) -> Work:
    work = json.loads(description.read_bytes())
    catalog = Path(work["catalog"])
    recipe, layout = Recipe.model_validate(work["recipe"]), StoreLayout.model_validate(work["layout"])
    scans = load_scans(catalog)
    paths = {sha: Path(path) for sha, path in work["paths"].items()}
    members = (m for scan in scans for m in scan.members if m.entry is not None)
    paths |= {m.sha256: catalog / MEMBERS / f"{m.sha256}.nc" for m in members}
    return Work(build_timeline(scans, work["names"], recipe, layout), layout, SourceFiles(paths, work["stamps"]))


def _write(folder: Path, unit: Unit) -> UnitOutput:
    description, scratch, block = unit.payload
    work = _load(description)
    report = write_block(work.timeline, work.layout, work.files, folder, block, scratch)
    return UnitOutput(report.files, report.model_dump(exclude={"files"}))


def _forms(timeline: Timeline, records: Sequence[UnitRecord]) -> dict[str, str]:
    """Say what accumulated values were found to be; `ValueError` where the recipe declares something else."""
    forms: dict[str, str] = {}
    for channel in timeline.channels:
        evidence = Evidence()
        for record in records:
            evidence.merge(record.result["changes"].get(channel.name, {"hours": {}, "grew": False}))
        if sentence := evidence.contradiction(channel):
            raise ValueError(sentence)
        if channel.recipe.accumulation in ("hourly", "since_00utc"):
            forms[channel.name] = f"{evidence.form()}, and is declared {channel.recipe.accumulation}"
    return forms


def _attributes(timeline: Timeline, recipe: Recipe) -> dict[str, Any]:
    """Return what the store says of itself; no names or paths, so that equal data make equal stores."""
    shas = sorted(source.member.sha256 for source in timeline.sources)
    return {
        "units": {channel.name: channel.units for channel in timeline.channels},
        "cadence": str(timeline.cadence),
        "recipe": recipe.model_dump(mode="json"),
        "sources": {sha[:16]: sha for sha in shas},
    }


def _counts(timeline: Timeline, records: Sequence[UnitRecord]) -> dict[str, Any]:
    grid = timeline.grid
    times = timeline.times.astype("datetime64[s]")
    valid, _ = timeline.coverage()
    first = int(valid.any(axis=1).argmax())
    totals = {name: sum(r.result[name] for r in records) for name in ("valid", "preliminary", "compared")}
    return {
        "period": f"{times[first]} to {times[-1]}",
        "cadence": str(timeline.cadence),
        "grid": f"{grid.latitude.count} x {grid.longitude.count}",
        "channels": len(timeline.channels),
        "blocks": len(records),
        "planes_valid": totals["valid"],
        "planes_missing": int((~valid[first:]).sum()),
        "planes_era5t": totals["preliminary"],
        "planes_compared": totals["compared"],
        "planes_era5t_replaced": timeline.replaced,
        "planes_without_predecessor": sum(r.result["without_previous"] for r in records),
        "gaps": len(timeline.gaps()),
    }
