"""The stage that makes ERA5-like raw files and captions for the demo."""

from __future__ import annotations

from pathlib import Path

from configs.weather import SampleSource
from storage.assets import Unit
from tasks.samples.weather import sample_units, write_sample_unit
from tasks.stage import Job, StageResult, stage
from tasks.units import UnitOutput


@stage("era5_sample")
def era5_sample(job: Job, *, source: SampleSource) -> StageResult:
    """Generate ERA5-like NetCDF files, and captions by date and region that are true of them."""
    units = [job.unit(unit.id, [source, unit.id], (source, unit)) for unit in sample_units(source)]
    records = job.map(_generate, units)
    return StageResult(counts={"files": sum(len(r.files) for r in records), "days": source.days})


@stage("weather_text_sample")
def weather_text_sample(job: Job, *, source: SampleSource) -> StageResult:
    """Generate captions alone, as texts to train a language model on."""
    chosen = [unit for unit in sample_units(source) if unit.kind == "captions"]
    records = job.map(_generate, [job.unit(unit.id, [source, unit.id], (source, unit)) for unit in chosen])
    return StageResult(counts={"files": sum(len(r.files) for r in records), "days": source.days})


def _generate(folder: Path, unit: Unit) -> UnitOutput:
    source, sample = unit.payload
    write_sample_unit(source, sample, folder, preliminary=source.preliminary)
    return UnitOutput(sample.files)
