"""The stages that download ERA5: one unit per month and product, so that a kill costs one request."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from configs.weather import ArcoSource, CdsSource
from storage.assets import Unit
from tasks.era5.periods import is_preliminary
from tasks.stage import Job, StageResult, stage
from tasks.units import UnitOutput


def as_of(source: CdsSource | ArcoSource, today: date) -> str:
    """Return the month whose state of preliminary data a download has; `final` when none of it is preliminary."""
    last = source.last_day if isinstance(source, CdsSource) else source.end
    return f"{today:%Y-%m}" if is_preliminary(last, today) else "final"


def _freshness(end: date, as_of: str) -> str:
    """Return what tells a unit apart from the same one fetched when its data was preliminary."""
    return as_of if as_of != "final" and is_preliminary(end, date.fromisoformat(f"{as_of}-01")) else "final"


@stage("era5_download")
def era5_cds(job: Job, *, source: CdsSource, as_of: str) -> StageResult:
    """Fetch ERA5 from the Climate Data Store; months that may still be preliminary are fetched again each month."""
    from tasks.era5.cds import cds_partitions  # plans do without the clients

    units = []
    for partition in cds_partitions(source):
        identity = [partition, source.url, _freshness(partition.end, as_of)]
        units.append(job.unit(partition.id, identity, (partition, source)))
    records = job.map(_fetch_cds, units)
    return StageResult(counts={"requests": len(records)})


@stage("era5_download")
def era5_arco(job: Job, *, source: ArcoSource, as_of: str) -> StageResult:
    """Copy a box of the public ARCO-ERA5 Zarr to NetCDF files."""
    from tasks.era5.arco import arco_partitions

    units = []
    for partition in arco_partitions(source):
        shape = source.model_dump(mode="json", exclude={"start", "end"})
        identity = [partition, shape, _freshness(partition.end, as_of)]
        units.append(job.unit(partition.id, identity, (partition, source)))
    records = job.map(_fetch_arco, units)
    return StageResult(counts={"files": len(records)})


def _fetch_cds(folder: Path, unit: Unit) -> UnitOutput:
    from tasks.era5.cds import fetch_cds

    partition, source = unit.payload
    fetch_cds(partition, source, folder / f"{unit.id}.nc")
    return UnitOutput([f"{unit.id}.nc"])


def _fetch_arco(folder: Path, unit: Unit) -> UnitOutput:
    from tasks.era5.arco import fetch_arco

    partition, source = unit.payload
    fetch_arco(partition, source, folder / f"{unit.id}.nc")
    return UnitOutput([f"{unit.id}.nc"])
