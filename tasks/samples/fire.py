"""The stage that makes a raw wildfire archive for the demo: a landscape, a year of wind, and fires that obey both.

Layout, as users have it (numbers are those of the fires, from 1):

    archive/landscape/Input_Geotiff.tif       float32 bands fuels, cbd, cbh, elevation; nodata -9999
    archive/landscape/indices.json            {"1": [y0, y1, x0, x1], ...}: crops, half-open, rows first
    archive/landscape/WeatherHistory.csv      line i: the weather file of fire i
    archive/landscape/Weathers/*.csv          one row per hour; row t drives frame t to t + 1, so T - 1 rows
    archive/fire_frames/sequence_001/fire_000.png, archive/isochrones/sequence_001/iso_000.png
    truth.json                                ignition, first hour of wind and burnt cells of every fire
"""

from __future__ import annotations

import json
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from configs.fire_sample import SampleFires
from storage.assets import Unit, UnitRecord
from storage.files import write_atomic
from storage.hashing import digest
from tasks.stage import Job, StageResult, stage
from tasks.units import UnitOutput

if TYPE_CHECKING:
    from tasks.samples.fire_landscape import Landscape

RASTER = "archive/landscape/Input_Geotiff.tif"
BURNT = (253, 231, 36, 255)
UNBURNT = (68, 1, 84, 255)


@stage("fire_sample")
def fire_sample(job: Job, *, source: SampleFires) -> StageResult:
    """Generate a raw wildfire archive: fires spread by wind, slope and fuel over terrain with holes."""
    identity = source.model_dump(mode="json", exclude={"fires"})  # more fires leave the earlier ones as they are
    prepared = _prepare(job, source, identity)
    units = [job.unit("landscape", identity, (source, prepared))]
    for index in range(source.fires):
        units.append(job.unit(f"fire-{index + 1:04d}", [identity, index], (source, prepared, index)))
    landscape, *fires = job.map(_generate, units)
    _write_tables(job.folder, source, fires)
    return StageResult(counts=_counts(landscape, fires))


def _prepare(job: Job, source: SampleFires, identity: dict[str, Any]) -> Path:
    """Make the landscape once for all workers."""
    from tasks.samples.fire_landscape import make_landscape

    path = job.workspace.scratch / f"landscape-{digest([job.code, identity])[:16]}.npz"
    if not path.exists():
        write_atomic(path, make_landscape(source).to_bytes())
    return path


@lru_cache(maxsize=1)
def _landscape(path: Path) -> Landscape:
    from tasks.samples.fire_landscape import Landscape

    return Landscape.from_file(path)


def _generate(folder: Path, unit: Unit) -> UnitOutput:
    source, prepared, *index = unit.payload
    landscape = _landscape(prepared)
    return _write_fire(folder, source, landscape, *index) if index else _write_raster(folder, source, landscape)


def _write_raster(folder: Path, source: SampleFires, landscape: Landscape) -> UnitOutput:
    from tasks.samples.fire_landscape import write_raster

    write_raster(landscape, source.cell_metres, folder / RASTER)
    mapped = ~landscape.unmapped
    return UnitOutput(
        [RASTER],
        {
            "outside": int((landscape.unmapped & landscape.hole).sum()),
            "holes": int((landscape.hole & mapped).sum()),
            "burnable": int(landscape.burnable.sum()),
        },
    )


def _write_fire(folder: Path, source: SampleFires, landscape: Landscape, index: int) -> UnitOutput:
    from tasks.samples.fire_simulation import burn
    from tasks.samples.fire_wind import make_wind

    fire = burn(source, landscape, make_wind(source.seed), index)
    files = []
    for time, frame in enumerate(fire.frames):
        picture = _png(frame)
        for kind, prefix in (("fire_frames", "fire"), ("isochrones", "iso")):
            name = f"archive/{kind}/sequence_{index + 1:03d}/{prefix}_{time:03d}.png"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(picture)
            files.append(name)
    y0, y1, x0, x1 = fire.crop
    hole = (landscape.hole[y0:y1, x0:x1] & fire.frames[-1]).sum()
    return UnitOutput(files, {**fire.truth(), "burnt_without_elevation": int(hole)})


def _png(burnt: NDArray[np.bool_]) -> bytes:
    """Draw a frame as users have them: RGBA in the two colours at the ends of viridis."""
    from PIL import Image

    buffer = BytesIO()
    colours = np.array([UNBURNT, BURNT], np.uint8)
    Image.fromarray(colours[burnt.astype(np.intp)], "RGBA").save(buffer, "PNG", compress_level=9)
    return buffer.getvalue()


def _write_tables(folder: Path, source: SampleFires, fires: list[UnitRecord]) -> None:
    """Write what lists all fires: crops, wind and the truth."""
    from tasks.samples.fire_wind import make_wind, weather_files

    truth = [{"sequence": number, **record.result} for number, record in enumerate(fires, 1)]
    landscape = folder / "archive/landscape"
    write_atomic(landscape / "indices.json", json.dumps({str(fire["sequence"]): fire["crop"] for fire in truth}))
    names, used = weather_files([(fire["first_hour"], fire["frames"] - 1) for fire in truth])
    wind = make_wind(source.seed)
    for (first, rows), name in names.items():
        write_atomic(landscape / "Weathers" / name, wind.csv(first, rows, "data/sample"))
    history = "".join(f"data/sample/Weathers/{name}\n" for name in used)
    write_atomic(landscape / "WeatherHistory.csv", history)
    write_atomic(folder / "truth.json", json.dumps(truth, indent=0) + "\n")


def _counts(landscape: UnitRecord, fires: list[UnitRecord]) -> dict[str, Any]:
    results = [record.result for record in fires]
    frames = [result["frames"] for result in results]
    growth = [np.diff(result["burnt"]) for result in results]
    return {
        "fires": len(fires),
        "frames": sum(frames),
        "fires of at most 6 frames": sum(count <= 6 for count in frames),
        "hours without growth": int(sum((hours == 0).sum() for hours in growth)),
        "cells burnt at the end, median": int(np.median([result["burnt"][-1] for result in results])),
        "cells burnt without elevation": sum(result["burnt_without_elevation"] for result in results),
        "burnable cells": landscape.result["burnable"],
        "cells without elevation": landscape.result["holes"],
        "cells outside": landscape.result["outside"],
    }
