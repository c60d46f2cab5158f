"""Tiny raw fire archives, whole or with chosen defects, and the stages run on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import from_origin

from configs.fire_data import Decoding, FireSplits, Tokens
from storage.assets import Asset, AssetStore
from tasks.fire.archive import archive_files, archive_names
from tasks.fire.cache import fire_cache
from tasks.fire.records import fire_records
from tasks.fire.split import fire_split
from tasks.progress import Silent
from tasks.session import Session
from tasks.stage import raw_input
from tasks.units import Workers

BURNT, OTHER = (253, 231, 36, 255), (68, 1, 84, 255)
CELL = 20.0
CODES = (0, 91, 101, 102, 165)


@dataclass
class Fire:
    """A fire that grows by `growth` pixels per frame around its ignition, in the domain alone."""

    number: int
    box: tuple[int, int, int, int]
    ignition: tuple[int, int]
    """Row and column of the landscape."""
    steps: int = 4
    wind: Sequence[tuple[float, float]] | None = None
    """(WS, WD) rows; rows of its own when absent."""
    growth: int = 2


@dataclass
class Raw:
    """What an archive was written from."""

    root: Path
    bands: dict[str, NDArray[np.float32]]
    valid: dict[str, NDArray[np.bool_]]
    fires: list[Fire]
    frames: dict[int, NDArray[np.bool_]] = field(default_factory=dict)
    winds: dict[int, list[tuple[float, float]]] = field(default_factory=dict)

    def image(self, number: int, step: int, kind: str = "isochrones", digits: int = 3) -> Path:
        """Return the path of an image."""
        stem = "iso" if kind == "isochrones" else "fire"
        return self.root / kind / f"sequence_{number:0{digits}d}" / f"{stem}_{step:03d}.png"


def landscape(shape: tuple[int, int] = (96, 160), seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Bands with holes (NaN): hilly elevation, patchy fuel, canopy."""
    chance = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    elevation = (500 + 200 * np.sin(rows / 17) + 150 * np.cos(columns / 23) + chance.normal(0, 3, shape)).astype("f4")
    fuels = np.array(CODES, np.float32)[chance.integers(0, len(CODES), (shape[0] // 8 + 1, shape[1] // 8 + 1))]
    fuels = fuels.repeat(8, 0).repeat(8, 1)[: shape[0], : shape[1]].copy()
    canopy = chance.random(shape).astype(np.float32)
    elevation[30:37, 40:47] = np.nan
    canopy[chance.random(shape) < 0.2] = np.nan
    fuels[:, -5:] = np.nan
    fuels[60:70, 20:27] = np.nan
    return {"fuels": fuels, "cbd": canopy, "elevation": elevation}


def some_fires(count: int = 6) -> list[Fire]:
    """Fires of different sizes and lengths along the columns; crops of odd sizes."""
    fires = []
    for i in range(count):
        column = 15 + i * 110 // max(1, count - 1)
        y0, x0 = 10 + 3 * i, max(0, column - 14)
        fires.append(Fire(i + 1, (y0, y0 + 33 + i, x0, x0 + 29 + 2 * i), (y0 + 17, column), 2 + i % 4))
    return fires


def write_archive(
    root: Path,
    fires: Sequence[Fire] | None = None,
    bands: dict[str, NDArray[np.float32]] | None = None,
    *,
    nodata: float | None = -9999.0,
    under_nodata: float | None = None,
    dtype: str = "float32",
    mode: str = "RGBA",
    digits: int = 3,
    extra_row: bool = False,
    prefix: str = "data/risk_study/Weathers/",
) -> Raw:
    """Write an archive; NaN in a band becomes the nodata value (`under_nodata` says another stand-in)."""
    fires = some_fires() if fires is None else list(fires)
    bands = landscape() if bands is None else bands
    raw = Raw(root, bands, {name: ~np.isnan(band) for name, band in bands.items()}, fires)
    write_landscape(root, bands, nodata, under_nodata, dtype)
    (root / "landscape" / "Weathers").mkdir(exist_ok=True)
    lines = [""] * max((fire.number for fire in fires), default=0)
    for fire in fires:
        wind = fire.wind or [
            (5.0 + 3 * fire.number + t, (40 * fire.number + 10 * t) % 360) for t in range(fire.steps - 1)
        ]
        raw.winds[fire.number] = [*wind, (1.0, 1.0)] if extra_row else list(wind)
        write_weather(root / f"landscape/Weathers/Weather{fire.number}.csv", raw.winds[fire.number])
        lines[fire.number - 1] = f"{prefix}Weather{fire.number}.csv"
        raw.frames[fire.number] = burn(fire, raw.valid["fuels"])
        for kind in ("fire_frames", "isochrones"):
            for step, mask in enumerate(raw.frames[fire.number]):
                write_image(raw.image(fire.number, step, kind, digits), mask, mode)
    (root / "landscape/WeatherHistory.csv").write_text("\n".join(lines) + "\n")
    (root / "landscape/indices.json").write_text(json.dumps({str(f.number): list(f.box) for f in fires}))
    return raw


def write_landscape(
    root: Path, bands: dict[str, NDArray[np.float32]], nodata: float | None, under: float | None, dtype: str
) -> None:
    (root / "landscape").mkdir(parents=True, exist_ok=True)
    first = next(iter(bands.values()))
    stand_in = nodata if under is None else under
    with rasterio.open(
        root / "landscape/Input_Geotiff.tif", "w", driver="GTiff", count=len(bands), dtype=dtype, nodata=nodata,
        height=first.shape[0], width=first.shape[1], crs="EPSG:25831",
        transform=from_origin(300_000, 4_600_000, CELL, CELL),
    ) as file:  # fmt: skip
        for i, (name, band) in enumerate(bands.items(), 1):
            values = band if stand_in is None else np.where(np.isnan(band), np.float32(stand_in), band)
            file.write(values.astype(dtype), i)
            file.set_band_description(i, name)


def write_weather(path: Path, rows: Sequence[tuple[float, float]]) -> None:
    text = ["Scenario,datetime,WS,WD,FireScenario", *(f"x,2024-01-01,{ws},{wd},1.0" for ws, wd in rows)]
    path.write_text("\n".join(text) + "\n")


def burn(fire: Fire, domain: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return diamonds around the ignition, (T, H, W), kept to the domain."""
    y0, y1, x0, x1 = fire.box
    rows, columns = np.mgrid[y0:y1, x0:x1]
    distance = np.abs(rows - fire.ignition[0]) + np.abs(columns - fire.ignition[1])
    return np.stack([(distance <= fire.growth * t) & domain[y0:y1, x0:x1] for t in range(fire.steps)])


def write_image(path: Path, mask: NDArray[np.bool_], mode: str = "RGBA") -> None:
    """Write a mask in the archive's two colours, as RGBA, RGB, P or L."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "P":
        image = Image.fromarray(np.where(mask, 3, 7).astype(np.uint8), "L").convert("P")
        palette = [0] * 768
        palette[9:12], palette[21:24] = BURNT[:3], OTHER[:3]
        image.putpalette(palette)
    elif mode == "L":
        image = Image.fromarray(np.where(mask, 231, 1).astype(np.uint8))
    else:
        colours = np.where(mask[..., None], np.array(BURNT, np.uint8), np.array(OTHER, np.uint8))
        image = Image.fromarray(np.ascontiguousarray(colours[..., : len(mode)]))
    image.save(path)


def records_of(
    store: AssetStore,
    root: Path,
    *,
    decoding: Decoding | None = None,
    patch: int = 16,
    on_broken: str = "error",
    workers: str = "inline",
) -> Asset:
    """Run the stage `fire_records` on an archive."""
    session = Session(store, Silent(), workers=Workers.parse(workers))
    with session.active():
        raw = raw_input("fire_archive", archive_files(str(root)))
        return fire_records(
            raw=raw, names=archive_names(raw), decoding=decoding or Decoding(), tokens=Tokens(patch=patch),
            on_broken=on_broken,
        )  # fmt: skip


def cache_of(store: AssetStore, root: Path, **options) -> Asset:
    """Run the stages up to the cache."""
    records = records_of(store, root, **options)
    with Session(store, Silent()).active():
        return fire_cache(records=records)


def split_of(store: AssetStore, cache: Asset, splits: FireSplits) -> Asset:
    """Run the stage `fire_split`."""
    with Session(store, Silent()).active():
        return fire_split(cache=cache, splits=splits)


def everything_for_training(cache_fires: Sequence[int]) -> FireSplits:
    """Return a split that puts all fires into training."""
    return FireSplits(
        method="lists", training=tuple(cache_fires), keep_apart="none", weather="none", validation_share=0, test_share=0
    )
