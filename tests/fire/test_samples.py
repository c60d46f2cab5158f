"""The generated fire archive: exact as files, right as physics, and the same bytes every time."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from PIL import Image
from pydantic import ValidationError

from configs.fire_sample import SampleFires
from storage.assets import AssetStore
from tasks.code import Code
from tasks.progress import Silent
from tasks.samples.fire import fire_sample
from tasks.samples.fire_fuels import FUELS
from tasks.samples.fire_landscape import Landscape
from tasks.samples.fire_spread import Surface, arrival_minutes, burnt_frames
from tasks.session import Session
from tasks.units import Workers
from tests.conftest import REPOSITORY

CONFIG = SampleFires(rows=210, columns=230, largest_crop=72)
SMALL = SampleFires(seed=3, fires=5, rows=96, columns=112, largest_crop=64, max_frames=5)
BURNT, UNBURNT = (253, 231, 36, 255), (68, 1, 84, 255)


def generate(root: Path, config: SampleFires, workers: str = "inline") -> Path:
    session = Session(AssetStore(root), Silent(), workers=Workers.parse(workers))
    with session.active():
        asset = fire_sample(source=config)
    return asset.folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.suffix and p.is_file()}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """An archive of the default number of fires, read back with the libraries that others use."""
    folder = generate(tmp_path_factory.mktemp("fires"), CONFIG) / "archive"
    landscape = folder / "landscape"
    with rasterio.open(landscape / "Input_Geotiff.tif") as file:
        bands, raster = (
            file.read(),
            file.profile | {"descriptions": file.descriptions, "projected": file.crs.is_projected},
        )
    history = (landscape / "WeatherHistory.csv").read_text().splitlines()
    fires = []
    for number, weather in enumerate(history, 1):
        table = (landscape / "Weathers" / Path(weather).name).read_text().splitlines()
        pictures = sorted((folder / f"fire_frames/sequence_{number:03d}").iterdir())
        y0, y1, x0, x1 = json.loads((landscape / "indices.json").read_text())[str(number)]
        fires.append(
            SimpleNamespace(
                pictures=pictures,
                frames=np.stack([np.asarray(Image.open(p))[..., 1] == 231 for p in pictures]),
                bands=dict(zip(raster["descriptions"], bands[:, y0:y1, x0:x1], strict=True)),
                crop=(y0, y1, x0, x1),
                header=table[0],
                wind=[row.split(",") for row in table[1:]],
            )
        )
    return SimpleNamespace(folder=folder, bands=bands, raster=raster, history=history, fires=fires)


@pytest.mark.long
def test_layout_is_that_of_users_archives(archive):
    expected = {"landscape/Input_Geotiff.tif", "landscape/indices.json", "landscape/WeatherHistory.csv"}
    expected |= {
        line.removeprefix("data/sample/").replace("Weathers/", "landscape/Weathers/") for line in archive.history
    }
    for number, fire in enumerate(archive.fires, 1):
        for time in range(len(fire.frames)):
            expected.add(f"fire_frames/sequence_{number:03d}/fire_{time:03d}.png")
            expected.add(f"isochrones/sequence_{number:03d}/iso_{time:03d}.png")
    assert contents(archive.folder).keys() == expected
    assert list(json.loads((archive.folder / "landscape/indices.json").read_text())) == [
        str(n) for n in range(1, CONFIG.fires + 1)
    ]


def test_raster_is_georeferenced_with_holes(archive):
    raster = archive.raster
    assert raster["descriptions"] == ("fuels", "cbd", "cbh", "elevation")
    assert (raster["dtype"], raster["nodata"], raster["projected"]) == ("float32", -9999, True)
    assert (raster["height"], raster["width"], raster["transform"].a) == (210, 230, CONFIG.cell_metres)
    void = archive.bands == -9999
    outside = void.all(axis=0)
    assert abs(outside.mean() - CONFIG.outside_share) < 0.03
    land = ~outside
    assert abs((void[3] & ~void[0])[land].mean() - CONFIG.hole_share) < 0.005
    assert (void[0] & ~void[3])[land].any()
    codes = set(np.unique(archive.bands[0][~void[0]]).astype(int))
    assert codes <= {91, 93, 98, 99, *FUELS}
    assert {91, 93, 98} < codes
    assert len(codes & FUELS.keys()) >= 6
    trees = np.isin(archive.bands[0], [165, 183, 188])
    assert (archive.bands[1][trees] > 0).all()
    assert (archive.bands[1][~trees & ~void[1]] == 0).all()


def test_pictures_have_two_colours_and_isochrones_agree(archive):
    for fire in archive.fires:
        for path in fire.pictures:
            with Image.open(path) as picture:
                assert picture.mode == "RGBA"
                assert {colour for _, colour in picture.getcolors()} <= {BURNT, UNBURNT}
            twin = str(path).replace("fire_frames", "isochrones").replace("fire_0", "iso_0")
            assert Path(twin).read_bytes() == path.read_bytes()


def test_frames_begin_with_the_ignition_and_are_nested(archive):
    for fire in archive.fires:
        assert fire.frames[0].sum() == 1
        assert (fire.frames[:-1] <= fire.frames[1:]).all()
        assert fire.frames[-1].sum() > 1
        y0, y1, x0, x1 = fire.crop
        assert fire.frames.shape[1:] == (y1 - y0, x1 - x0)
        assert 0 <= y0 < y1 <= 210
        assert 0 <= x0 < x1 <= 230
        assert 40 <= min(y1 - y0, x1 - x0) <= max(y1 - y0, x1 - x0) <= CONFIG.largest_crop


def test_one_weather_row_per_step_from_one_record(archive):
    record: dict[datetime, list[str]] = {}
    for fire in archive.fires:
        assert fire.header == "Scenario,datetime,WS,WD,FireScenario"
        assert len(fire.wind) == len(fire.frames) - 1
        times = [datetime.fromisoformat(row[1]) for row in fire.wind]
        assert times == [times[0] + timedelta(hours=n) for n in range(len(times))]
        for time, row in zip(times, fire.wind, strict=True):
            assert record.setdefault(time, row[2:4]) == row[2:4]
            assert 1 <= int(row[2]) <= 45
            assert 0 <= float(row[3]) < 360
    assert len(set(archive.history)) < len(archive.history)


def test_lengths_and_sizes_vary(archive):
    lengths = np.array([len(fire.frames) for fire in archive.fires])
    assert (lengths.min(), lengths.max() >= 11, len(set(lengths)) >= 9) == (2, True, True)
    assert (lengths <= 6).mean() > 0.5
    sides = np.array([fire.frames.shape[1:] for fire in archive.fires])
    assert ((sides % 16).any(axis=1)).mean() > 0.7
    assert ((sides % 16) == 0).all(axis=1).any()
    final = np.array([fire.frames[-1].sum() for fire in archive.fires])
    assert final.min() < 100
    assert final.max() > 1500
    assert any((np.diff(fire.frames.sum(axis=(1, 2))) == 0).any() for fire in archive.fires)


def test_vertical_blocks_all_have_fires(archive):
    columns = [fire.crop[2] + np.argwhere(fire.frames[0])[0, 1] for fire in archive.fires]
    counts = np.histogram(columns, bins=5, range=(0, 230))[0]
    assert counts.min() >= 0.05 * len(columns)


def test_only_fuel_burns_also_without_elevation(archive):
    without_elevation = 0
    for fire in archive.fires:
        burnt = fire.frames[-1]
        assert set(np.unique(fire.bands["fuels"][burnt]).astype(int)) <= FUELS.keys()
        without_elevation += int((fire.bands["elevation"][burnt] == -9999).sum())
    assert without_elevation > 0


def test_fires_run_before_the_wind(archive):
    cosines = []
    for fire in archive.fires:
        for before, after, row in zip(fire.frames, fire.frames[1:], fire.wind, strict=False):
            new = after & ~before
            if new.sum() >= 10 and float(row[2]) >= 10:
                south, east = np.argwhere(new).mean(axis=0) - np.argwhere(before).mean(axis=0)
                toward = math.radians(float(row[3]) + 180)
                cosines.append((east * math.sin(toward) - south * math.cos(toward)) / math.hypot(south, east))
    assert len(cosines) > 60
    assert np.mean(cosines) > 0.25


def landscape(fuel: np.ndarray, elevation: np.ndarray) -> Landscape:
    shape = fuel.shape
    crowns = np.isin(fuel, [165, 183, 188])
    none = np.zeros(shape, bool)
    return Landscape(fuel, crowns * 0.12, crowns * 1.5, elevation, np.ones(shape), none, none)


def test_fire_runs_uphill_in_calm_air():
    east = np.indices((61, 61))[1] * 20.0
    hill = landscape(np.full((61, 61), 122, np.int16), 0.4 * east)
    surface = Surface.of(hill, 20.0, (slice(None), slice(None)))
    arrival = arrival_minutes(surface, (30, 30), np.array([[0.0, 0.0]] * 3))
    columns = np.flatnonzero(burnt_frames(arrival, 4)[3].any(axis=0))
    assert columns[-1] - 30 > 2 * (30 - columns[0]) > 0


def test_fire_does_not_cross_a_road_one_cell_wide():
    fuel = np.full((41, 41), 104, np.int16)
    steps = np.arange(41)
    fuel[steps, np.minimum(steps // 2 + 12, 40)] = 91
    fuel[20:, 30] = 91
    roads = landscape(fuel, np.zeros((41, 41)))
    surface = Surface.of(roads, 20.0, (slice(None), slice(None)))
    burnt = np.isfinite(arrival_minutes(surface, (30, 5), np.array([[30.0, 270.0]] * 8)))
    beyond = np.indices(fuel.shape)[1] > steps[:, None] // 2 + 12
    assert burnt.sum() > 500
    assert not burnt[beyond].any()


def test_arrival_equals_a_brute_force_search():
    rng = np.random.default_rng(5)
    codes = rng.choice([91, 102, 122, 145, 165, 183, 188, 188], size=(11, 12)).astype(np.int16)
    codes[5, 5] = 122
    ground = np.cumsum(rng.normal(scale=4, size=(11, 12)), axis=1)
    winds = np.array([[9.0, 200.0], [22.0, 265.0], [4.0, 30.0], [31.0, 120.0]])
    place = landscape(codes, ground)
    arrival = arrival_minutes(Surface.of(place, 25.0, (slice(None), slice(None))), (5, 5), winds)
    expected = brute_force(place, 25.0, (5, 5), winds)
    assert np.isfinite(expected).sum() > 40
    assert np.array_equal(np.isfinite(arrival), np.isfinite(expected))
    finite = np.isfinite(expected)
    np.testing.assert_allclose(arrival[finite], expected[finite], rtol=1e-9, atol=1e-6)


def brute_force(place: Landscape, cell: float, ignition: tuple[int, int], winds: np.ndarray) -> np.ndarray:
    """Arrival by relaxing every step until nothing changes, with every formula written for one cell."""
    rows, columns = place.fuel.shape
    steps = [(r, c) for r in range(-2, 3) for c in range(-2, 3) if math.gcd(r, c) == 1]
    arrival = np.full((rows, columns), np.inf)
    arrival[ignition] = 0.0
    minutes = {
        (hour, r, c, step): step_minutes(place, cell, (r, c), step, wind)
        for hour, wind in enumerate(winds)
        for r in range(rows)
        for c in range(columns)
        for step in steps
    }
    changed = True
    while changed:
        changed = False
        for r, c in np.argwhere(np.isfinite(arrival)).tolist():
            for step in steps:
                if not (0 <= r + step[0] < rows and 0 <= c + step[1] < columns):
                    continue
                time, left = arrival[r, c], 1.0
                for hour in range(int(time // 60), len(winds)):
                    whole, rest = minutes[hour, r, c, step], 60 * (hour + 1) - time
                    if left * whole <= rest:
                        if time + left * whole < arrival[r + step[0], c + step[1]] - 1e-9:
                            arrival[r + step[0], c + step[1]], changed = time + left * whole, True
                        break
                    left, time = left - rest / whole, 60.0 * (hour + 1)
    return arrival


def step_minutes(place: Landscape, cell: float, start: tuple[int, int], step: tuple[int, int], wind) -> float:
    """Minutes of one step: its way through every cell that it crosses, each at that cell's own rate."""
    (row, column), (down, right) = start, step
    samples = 4 if abs(down) + abs(right) == 3 else 2
    passed = [((i + 0.5) / samples * down, (i + 0.5) / samples * right) for i in range(samples)]
    cells = [(row + math.floor(a + 0.5), column + math.floor(b + 0.5)) for a, b in passed]
    if samples == 2:
        cells = [start, (row + down, column + right)]
    if not all(0 <= r < place.fuel.shape[0] and 0 <= c < place.fuel.shape[1] for r, c in cells):
        return math.inf
    if abs(down) == abs(right) and not any(
        place.fuel[p] in FUELS for p in ((row + down, column), (row, column + right))
    ):
        return math.inf
    length = cell * math.hypot(down, right)
    rates = [rate_towards(place, cell, p, math.atan2(right, -down), *wind) for p in cells]
    return math.inf if 0 in rates else sum(length / samples / rate for rate in rates)


def rate_towards(
    place: Landscape, cell: float, at: tuple[int, int], bearing: float, speed: float, origin: float
) -> float:
    """Metres per minute towards a bearing: Rothermel 1972, Anderson 1983, Van Wagner 1977 and Finney 1998."""
    if int(place.fuel[at]) not in FUELS:
        return 0.0
    fuel = FUELS[int(place.fuel[at])]
    b, e = 0.02526 * fuel.surface**0.54, 0.715 * math.exp(-3.59e-4 * fuel.surface)
    c = 7.47 * math.exp(-0.133 * fuel.surface**0.55) * (fuel.packing / (3.348 * fuel.surface**-0.8189)) ** -e
    wind_factor = c * (speed / 1.15 * 54.68 * fuel.sheltering) ** b
    (south, east), z = gradient(place.elevation, at), 5.275 * fuel.packing**-0.3 / cell**2
    steep = math.hypot(south, east)
    x = z * steep * east + wind_factor * math.sin(math.radians(origin + 180))
    y = z * steep * -south + wind_factor * math.cos(math.radians(origin + 180))
    total = math.hypot(x, y)
    head = fuel.rate * (1 + total)
    if fuel.timber:
        lit = (0.010 * place.crown_base[at] * (460 + 25.9 * 100)) ** 1.5 * 60 / (18_000 * fuel.load)
        if head > lit:
            full = max(3 / place.crown_density[at], lit + 0.1)
            head *= 1 + 2.34 * (1 - 10 ** (-(head - lit) / (0.9 * (full - lit))))
    effective = min((total / c) ** (1 / b) / 88, 30.0)
    ratio = 0.936 * math.exp(0.1147 * effective) + 0.461 * math.exp(-0.0692 * effective) - 0.397
    eccentricity = math.sqrt(1 - 1 / min(max(ratio, 1.0), 8.0) ** 2)
    return head * (1 - eccentricity) / (1 - eccentricity * math.cos(bearing - math.atan2(x, y)))


def gradient(ground: np.ndarray, at: tuple[int, int]) -> tuple[float, float]:
    slopes = []
    for axis in (0, 1):
        low, high = list(at), list(at)
        low[axis], high[axis] = max(at[axis] - 1, 0), min(at[axis] + 1, ground.shape[axis] - 1)
        slopes.append(float(ground[tuple(high)] - ground[tuple(low)]) / (high[axis] - low[axis]))
    return slopes[0], slopes[1]


def test_same_seed_same_bytes_for_any_workers(tmp_path):
    alone = contents(generate(tmp_path / "inline", SMALL))
    assert contents(generate(tmp_path / "two", SMALL, "2")).keys() == alone.keys()
    two = contents(generate(tmp_path / "two", SMALL, "2"))
    assert [name for name in alone if name != "manifest.json" and alone[name] != two[name]] == []
    other = contents(generate(tmp_path / "inline", SMALL.model_copy(update={"seed": 4})))
    raster = "archive/landscape/Input_Geotiff.tif"
    assert other[raster] != alone[raster]


def test_more_fires_leave_the_earlier_ones_alone(tmp_path):
    few = contents(generate(tmp_path, SMALL))
    many = contents(generate(tmp_path, SMALL.model_copy(update={"fires": 7})))
    shared = [name for name in few if name.endswith((".png", ".tif"))]
    assert all(many[name] == few[name] for name in shared)
    assert len({name.split("/")[2] for name in many if "fire_frames" in name}) == 7


def test_without_sea_and_holes_every_band_is_whole(tmp_path):
    whole = SMALL.model_copy(update={"outside_share": 0.0, "hole_share": 0.0, "fires": 1})
    with rasterio.open(generate(tmp_path, whole) / "archive/landscape/Input_Geotiff.tif") as file:
        assert (file.read() != -9999).all()


def test_fires_that_cannot_fit_end_in_one_sentence(tmp_path):
    limits = {"cell_metres": 5.0, "largest_crop": 48, "min_frames": 48, "max_frames": 48, "fires": 4}
    with pytest.raises(ValueError, match="found no place to burn for 48 frames"):
        generate(tmp_path, SMALL.model_copy(update=limits))
    with pytest.raises(ValidationError, match="max_frames"):
        SampleFires(min_frames=6, max_frames=5)


def test_every_part_is_in_the_code_digest_and_none_is_heavy_to_plan():
    reached = Code().reached("tasks.samples.fire").keys()
    parts = ("terrain", "fuels", "landscape", "wind", "spread", "simulation")
    assert {f"tasks.samples.fire_{part}" for part in parts} <= reached
    check = "import sys, tasks.samples.fire; print([m for m in ('scipy', 'rasterio', 'PIL') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert ran.stdout.strip() == "[]"
