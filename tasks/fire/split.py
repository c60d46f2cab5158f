"""The stage that divides fires into parts and measures the training part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from configs.fire_data import FireSplits
from storage.assets import Asset
from storage.fire_split import (
    PARTS,
    BandStatistics,
    ClassStatistics,
    FireEntry,
    Statistics,
    WindStatistics,
)
from storage.token_cache import TokenCache
from tasks.fire.landscape import SLOPES
from tasks.fire.leaks import check_split, region_box
from tasks.fire.parts import divide
from tasks.stage import Job, StageResult, stage


@stage("fire_split")
def fire_split(job: Job, *, cache: Asset, splits: FireSplits) -> StageResult:
    """Write `split.json` (checked for leaks) and `statistics.json` (of the training fires' valid pixels)."""
    fires = TokenCache.open(cache.folder)
    split = divide(fires, splits)
    check_split(fires, split)
    split.save(job.folder)
    measure(fires, split.part("train")).save(job.folder)
    left_out = Counter(entry.reason for entry in split.fires if entry.part is None)
    for reason, count in sorted(left_out.items()):
        job.message(f"left out of the split: {count} fires because {reason}")
    counts: dict[str, int] = {}
    for part in PARTS:
        entries = split.part(part)
        counts[part] = len(entries)
        counts[f"{part}_samples"] = sum(fires.steps[entry.fire] - 1 for entry in entries)
    cut = sum(entry.part is not None and entry.region != _whole(fires, entry.fire) for entry in split.fires)
    return StageResult(counts=counts | {"left_out": sum(left_out.values()), "crops_cut": cut})


def _whole(cache: TokenCache, fire: int) -> tuple[int, int, int, int]:
    crop = cache.crops[fire]
    return 0, crop.rows, 0, crop.columns


def training_domain(cache: TokenCache, entries: Sequence[FireEntry]) -> NDArray[np.bool_]:
    """Return the pixels of the landscape in the regions of these fires where the fuel band has a value, (Y, X)."""
    covered = np.zeros(cache.array("landscape/classes").shape[1:], bool)
    for entry in entries:
        y0, y1, x0, x1 = region_box(cache, entry)
        covered[y0:y1, x0:x1] = True
    return covered & (cache.array("landscape/classes")[cache.fuel] > 0)


def measure(cache: TokenCache, entries: Sequence[FireEntry]) -> Statistics:
    """Return the statistics of these fires: every landscape pixel of their domain counts once."""
    domain = training_domain(cache, entries)
    values, valid = cache.array("landscape/values"), cache.array("landscape/valid")
    bands = []
    for name, band, known in zip(cache.continuous, values, valid, strict=True):
        chosen = band[domain & known].astype(np.float64)
        mean, std = (float(chosen.mean()), float(chosen.std())) if len(chosen) else (0.0, 0.0)
        bands.append(BandStatistics(name=name, mean=mean, std=std, pixels=len(chosen)))
    classes = []
    for (name, codes), band in zip(cache.categorical, cache.array("landscape/classes"), strict=True):
        seen = np.bincount(band[domain], minlength=len(codes) + 1)[1:]
        classes.append(ClassStatistics(name=name, codes=tuple(c for c, n in zip(codes, seen, strict=True) if n)))
    rows = [wind[known, 0] for wind, known in (cache.wind(entry.fire) for entry in entries)]
    speed = np.concatenate(rows).astype(np.float64)
    wind = WindStatistics(
        mean=float(speed.mean()) if len(speed) else 0.0, std=float(speed.std()) if len(speed) else 0.0, rows=len(speed)
    )
    return Statistics(bands=tuple(_turnable(bands)), classes=tuple(classes), wind=wind)


def _turnable(bands: Sequence[BandStatistics]) -> list[BandStatistics]:
    """Give both slopes mean 0 and one scale, so that they can turn with the map after they are standardised."""
    slopes = [band for band in bands if band.name in SLOPES]
    pixels = sum(band.pixels for band in slopes)
    square = sum((band.std**2 + band.mean**2) * band.pixels for band in slopes)
    scale = float(np.sqrt(square / pixels)) if pixels else 0.0
    return [
        BandStatistics(name=band.name, mean=0.0, std=scale, pixels=band.pixels) if band.name in SLOPES else band
        for band in bands
    ]
