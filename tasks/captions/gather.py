"""The stage that reads caption files and finds the places that they are about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.weather_lm import CaptionFiles
from storage.assets import Asset
from storage.raw import FoundFiles, RawInput, find_files
from tasks.captions.placed import PlacedCaption, write_placed
from tasks.captions.read import Columns, read_captions
from tasks.captions.region_table import Box
from tasks.captions.regions import Gazetteer, load_regions
from tasks.stage import Job, Label, StageResult, stage

SHOWN_REGIONS = 8


@stage("weather_captions")
def weather_captions(
    job: Job,
    *,
    raw: Asset | RawInput,
    names: Mapping[str, str],
    columns: Mapping[str, str],
    boxes: Mapping[str, Box],
    label: Label,
    regions: RawInput | None = None,
) -> StageResult:
    """Read captions of any known shape, drop repetitions, and give each the box of its region."""
    found = read_captions(_files(raw, names), _columns(columns))
    for line in found.report():
        job.message(line)
    if not found.captions:
        raise ValueError("the caption files hold no usable caption; the lines above say why")
    gazetteer = Gazetteer.world().extended(boxes)
    for path in regions.paths().values() if regions else ():
        gazetteer = gazetteer.extended(load_regions(path))
    captions = [
        PlacedCaption(c.date, c.region, gazetteer.find(c.region, c.text), c.text, _short(c.source))
        for c in found.captions
    ]
    write_placed(job.folder, captions)
    lost = sorted({c.region or "no region" for c in captions if c.box is None})
    if lost:
        more = ", ..." if len(lost) > SHOWN_REGIONS else ""
        job.message(f"{len(lost)} regions have no known place: {', '.join(lost[:SHOWN_REGIONS])}{more}")
    dates = [c.date for c in captions]
    return StageResult(
        counts={
            "captions": len(captions),
            "placed": sum(c.box is not None for c in captions),
            "dates": len(set(dates)),
            "first": f"{min(dates)}",
            "last": f"{max(dates)}",
            "not_used": sum(map(len, found.unusable.values())),
            "duplicates": found.duplicates,
        }
    )


def find_captions(source: CaptionFiles) -> FoundFiles:
    """Return the CSV files that a source names; what else lies in its folders is passed over."""
    return find_files(
        source.paths,
        lambda path: path.suffix.lower() == ".csv",
        lambda path: "is no .csv file",
        field="captions.source.paths",
    )


def caption_files(raw: Any) -> dict[str, str]:
    """Return the names of raw caption files by their SHA-256; an asset's files have names of their own."""
    return {sha256: path.name for sha256, path in raw.paths().items()} if isinstance(raw, RawInput) else {}


def named_columns(config: CaptionFiles) -> dict[str, str]:
    """Return the columns that a configuration names, by what they hold."""
    given = {"date": config.date_column, "text": config.text_column, "region": config.region_column}
    return {kind: name for kind, name in given.items() if name}


def _columns(named: Mapping[str, str]) -> Columns:
    return replace(Columns(), **{kind: (name,) for kind, name in named.items()})


def _files(raw: Asset | RawInput, names: Mapping[str, str]) -> list[Path]:
    """Return the CSV files of captions in the order of their names."""
    if isinstance(raw, Asset):
        return sorted(p for p in raw.folder.glob("captions_*.csv") if not p.name.startswith("captions_truth"))
    paths = raw.paths()
    return [paths[sha256] for sha256 in sorted(paths, key=lambda sha256: (names[sha256], sha256))]


def _short(source: str) -> str:
    """Return `name:line` of a place in a file, so that an asset does not depend on where files lie."""
    path, _, line = source.rpartition(":")
    return f"{Path(path).name}:{line}"
