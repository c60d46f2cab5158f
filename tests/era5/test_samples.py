"""The generated weather: right as physics, right as files, and captions that say only what the files hold."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
import sys
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr

from configs.weather import SampleSource
from tasks.samples.weather import REGIONS, SampleUnit, sample_units, write_sample_unit
from tasks.samples.weather_earth import sample_grid
from tasks.samples.weather_fields import PRESSURE_LEVEL, SINGLE_LEVEL, day_batches

SMALL = SampleSource(start=date(2024, 1, 30), days=3, resolution=1.5, seed=7)
"""Three days across the end of a month on 21 x 31 points."""


def fields(config: SampleSource, *days: date) -> xr.Dataset:
    """The generated fields of some days, straight from the generator."""
    grid = sample_grid(config)
    parts = []
    for day in days:
        for batch in day_batches(config, day):
            parts.append(
                xr.Dataset(
                    {n: (("time", "latitude", "longitude"), v) for n, v in batch.single.items()}
                    | {n: (("time", "level", "latitude", "longitude"), v) for n, v in batch.pressure.items()},
                    {
                        "time": batch.times.astype("M8[ns]"),
                        "latitude": grid.latitude,
                        "longitude": grid.longitude,
                        "level": sorted(config.levels, reverse=True),
                    },
                )
            )
    return xr.concat(parts, "time")


@pytest.fixture(scope="module")
def winter() -> xr.Dataset:
    """Europe, five winter days apart from each other, 3-hourly."""
    config = SampleSource(step_hours=3, resolution=0.75)
    return fields(config, *(date(2024, 1, day) for day in (3, 9, 15, 21, 27)))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`SMALL` on disk, all units."""
    folder = tmp_path_factory.mktemp("sample")
    for unit in sample_units(SMALL):
        write_sample_unit(SMALL, unit, folder)
    return folder


def unzipped(archive: Path, folder: Path) -> list[Path]:
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(folder)
        return [folder / name for name in zipped.namelist()]


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def correlation(a: xr.DataArray, b: xr.DataArray) -> float:
    return float(np.corrcoef(a.values.ravel(), b.values.ravel())[0, 1])


# Physics


def geostrophic(potential: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Geostrophic wind of a geopotential, by numpy's own differences."""
    phi = np.radians(potential.latitude)
    f = 2 * 7.292e-5 * np.sin(phi)
    metres = np.radians(1) * 6.371e6
    north = potential.differentiate("latitude") / metres
    east = potential.differentiate("longitude") / (metres * np.cos(phi))
    return -north / f, east / f


def test_winds_follow_the_pressure_gradient(winter: xr.Dataset) -> None:
    middle = winter.sel(latitude=slice(58, 40)).isel(longitude=slice(2, -2))
    for level in (850, 500):
        u, v = geostrophic(winter.z.sel(level=level))
        u, v = u.sel(middle.coords["latitude"].coords), v.sel(middle.coords["latitude"].coords)
        u, v = u.isel(longitude=slice(2, -2)), v.isel(longitude=slice(2, -2))
        assert correlation(u, middle.u.sel(level=level)) > 0.9
        assert correlation(v, middle.v.sel(level=level)) > 0.9
    u, v = geostrophic(287 * 285 * np.log(winter.msl))
    u, v = u.sel(latitude=middle.latitude).isel(longitude=slice(2, -2)), v.sel(latitude=middle.latitude)
    v = v.isel(longitude=slice(2, -2))
    assert correlation(u, middle.u10) > 0.8
    assert correlation(v, middle.v10) > 0.8
    # friction: slower than geostrophic, turned towards low pressure (to the left in the north)
    speed, balanced = np.hypot(middle.u10, middle.v10), np.hypot(u, v)
    assert float(speed.mean()) < 0.8 * float(balanced.mean())
    strong = balanced > 8
    turn = (u * middle.v10 - v * middle.u10) / (speed * balanced)
    assert float(turn.where(strong).mean()) > 0.15


def test_the_atmosphere_is_hydrostatic_and_the_jet_is_thermal(winter: xr.Dataset) -> None:
    thickness = winter.z.sel(level=500) - winter.z.sel(level=850)
    mean = winter.t.mean("level")
    np.testing.assert_allclose(thickness, 287.05 * mean * np.log(850 / 500), rtol=0.01)
    assert correlation(thickness, mean) > 0.97
    assert float(np.hypot(winter.u, winter.v).sel(level=500).mean()) > 1.5 * float(
        np.hypot(winter.u, winter.v).sel(level=850).mean()
    )


def test_rain_falls_where_air_is_moist_and_pressure_low(winter: xr.Dataset) -> None:
    rain = winter.tp > 0.0005
    assert 0.005 < float(rain.mean()) < 0.3
    assert float((winter.tp == 0).mean()) > 0.3
    moist = winter.r.sel(level=850)
    assert float(moist.where(rain).mean()) > float(moist.where(winter.tp == 0).mean()) + 20
    assert float(winter.msl.where(rain).mean()) < float(winter.msl.where(winter.tp == 0).mean()) - 300
    assert bool((winter.cp <= winter.tp).all())
    assert bool((winter.tp >= 0).all())


def test_fronts_are_sharp(winter: xr.Dataset) -> None:
    middle = winter.sel(latitude=slice(56, 40))
    gradient = np.hypot(
        middle.t.sel(level=850).differentiate("latitude"), middle.t.sel(level=850).differentiate("longitude") / 0.66
    )
    assert float(gradient.max()) > 4 * float(gradient.mean())


def test_the_coarse_map_of_continents_leaves_no_lines() -> None:
    config = SampleSource(north=60, south=40, west=-20, east=40, resolution=0.25, step_hours=6)
    europe = fields(config, date(2024, 7, 12), date(2024, 1, 12))
    for name in ("msl", "r"):
        for axis in ("latitude", "longitude"):
            bend = europe[name].astype("f8").diff(axis, 2).transpose(..., axis).values
            spike = abs(bend[..., 1:-1] - (bend[..., :-2] + bend[..., 2:]) / 2)
            on_line = europe[axis].values[2:-2] % 2.5 == 0
            assert spike[..., on_line].mean() < 1.2 * spike[..., ~on_line].mean(), (name, axis)


def test_no_sun_at_night(winter: xr.Dataset) -> None:
    day = winter.time.dt.dayofyear
    declination = np.radians(-23.44) * np.cos(2 * np.pi * (day + 10) / 365.25)
    highest = -np.inf
    for minutes in range(0, 61, 10):
        angle = np.radians(winter.longitude + 15 * (winter.time.dt.hour - minutes / 60) - 180)
        phi = np.radians(winter.latitude)
        height = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(angle)
        highest = np.maximum(highest, height.transpose("time", "latitude", "longitude"))
    assert float(winter.ssrd.where(highest < -0.01).max()) == 0
    assert float(winter.ssrd.where(highest > 0.1).min()) > 0
    assert float((winter.ssrd - 3600 * 1361 * highest.clip(0)).max()) <= 0


def test_dew_point_surface_pressure_and_sea_temperature_are_possible(winter: xr.Dataset) -> None:
    assert bool((winter.d2m <= winter.t2m).all())
    assert bool((winter.sp <= winter.msl + 1).all())
    land = winter.sst.isnull()
    assert 0.2 < float(land.mean()) < 0.8
    assert bool((land == land.isel(time=0)).all())
    assert 271 < float(winter.sst.min()) < float(winter.sst.max()) < 305
    assert bool(land.isel(time=0).sel(latitude=48, longitude=10.5, method="nearest"))  # Germany
    assert not bool(land.isel(time=0).sel(latitude=45, longitude=-12, method="nearest"))  # Atlantic


def test_storms_move_eastwards() -> None:
    config = SampleSource(north=60, south=40, west=-80, east=40, resolution=1, step_hours=6, levels=())
    best = []
    for day in (4, 12, 20, 28):
        msl = fields(config, date(2024, 1, day)).msl
        early, late = msl.isel(time=0), msl.isel(time=2)  # 12 hours
        assert float(abs(late - early).max()) > 500
        middle = early.values[:, 20:-20].ravel()
        shifted = {shift: late.values[:, 20 + shift : 101 + shift].ravel() for shift in range(-15, 16)}
        scores = {shift: np.corrcoef(middle, values)[0, 1] for shift, values in shifted.items()}
        best.append(max(scores, key=lambda shift: scores[shift]))
    assert np.median(best) >= 3  # at least 6 m/s
    assert min(best) >= 0


def test_seasons_and_days_differ() -> None:
    config = SampleSource(step_hours=3, resolution=3, levels=())
    january = fields(config, *(date(2024, 1, day) for day in (5, 15, 25)))
    july = fields(config, *(date(2024, 7, day) for day in (5, 15, 25)))
    warming = (july.t2m - january.t2m.values).mean(["time", "longitude"])
    assert float(warming.min()) > 4
    land = july.sst.isel(time=0).isnull()
    swing = july.t2m.groupby("time.hour").mean()
    swing = swing.max("hour") - swing.min("hour")
    assert float(swing.where(land).mean()) > max(5, 2 * float(swing.where(~land).mean()))


def test_tropical_cyclones_live_over_warm_sea() -> None:
    config = SampleSource(north=36, south=6, west=110, east=200, resolution=1, step_hours=6, levels=())
    peaks = []
    for day in (1, 6, 11, 16, 21, 26):
        month = fields(config, date(2024, 9, day))
        wind = np.hypot(month.u10, month.v10)
        where = wind.argmax(...)
        point = wind.isel(where)
        peaks.append(
            (
                float(wind.max()),
                float(month.msl.isel({**where}).min()),
                bool(month.sst.isel(time=0).sel(latitude=point.latitude, longitude=point.longitude).isnull()),
            )
        )
    strong = [peak for peak in peaks if peak[0] > 22]
    assert strong
    assert sum(on_land for _, _, on_land in strong) <= len(strong) / 2


def test_a_global_grid_has_no_seam_and_no_bad_value() -> None:
    config = SampleSource(north=90, south=-90, west=0, east=360, resolution=5, step_hours=6)
    globe = fields(config, date(2024, 3, 1))
    assert globe.sizes["longitude"] == 72
    for name in SINGLE_LEVEL + PRESSURE_LEVEL:
        assert name == "sst" or bool(np.isfinite(globe[name]).all()), name
    inside = abs(globe.msl.diff("longitude")).max()
    assert float(abs(globe.msl.isel(longitude=0) - globe.msl.isel(longitude=-1)).max()) <= float(inside)


def test_air_from_the_equator_is_warm_and_moist() -> None:
    config = SampleSource(north=60, south=35, west=-180, east=180, resolution=2.5, step_hours=6, levels=(850,))
    globe = fields(config, date(2024, 1, 5), date(2024, 1, 20)).sel(level=850)
    warmth = globe.t - globe.t.mean(["time", "longitude"])
    assert correlation(warmth, globe.v) > 0.1
    ahead, behind = globe.v > 12, globe.v < -12
    assert float(warmth.where(ahead).mean()) > float(warmth.where(behind).mean()) + 1.5
    assert float(globe.r.where(ahead).mean()) > float(globe.r.where(behind).mean()) + 5


# Determinism


@pytest.mark.parametrize("layout", ["cds", "classic", pytest.param("single", marks=pytest.mark.long)])
def test_same_bytes_in_another_process_and_order(layout: str, tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"layout": layout, "step_hours": 6, "resolution": 3.0})
    for unit in reversed(sample_units(config)):
        write_sample_unit(config, unit, tmp_path / "here")
    code = (
        "import sys; from pathlib import Path; from configs.weather import SampleSource;"
        "from tasks.samples.weather import sample_units, write_sample_unit;"
        "c = SampleSource.model_validate_json(sys.argv[1]);"
        "[write_sample_unit(c, u, Path(sys.argv[2])) for u in sample_units(c)]"
    )
    there = tmp_path / "there"
    subprocess.run([sys.executable, "-c", code, config.model_dump_json(), str(there)], check=True)
    assert hashes(tmp_path / "here") == hashes(there)
    assert set(hashes(there)) == {file for unit in sample_units(config) for file in unit.files}


def test_a_day_needs_no_other_day() -> None:
    late = SMALL.model_copy(update={"start": date(2024, 2, 1), "days": 1})
    xr.testing.assert_identical(fields(SMALL, date(2024, 2, 1)), fields(late, date(2024, 2, 1)))


def test_other_seeds_make_other_weather_on_the_same_earth() -> None:
    other = SMALL.model_copy(update={"seed": 8})
    a, b = fields(SMALL, date(2024, 2, 1)), fields(other, date(2024, 2, 1))
    assert float(abs(a.msl - b.msl).mean()) > 200
    xr.testing.assert_equal(a.sst.isnull(), b.sst.isnull())


# Units and files


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"west": -180, "east": 360}, "more than once around the globe"),
        ({"levels": (850, 850)}, "name a level twice"),
        ({"levels": (0,)}, "greater than or equal to 1"),
    ],
)
def test_impossible_samples_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SampleSource(**setting)


def test_units_are_months_or_days_and_name_their_files() -> None:
    assert [unit.id for unit in sample_units(SMALL)] == ["2024-01", "2024-02", "captions-2024-01", "captions-2024-02"]
    assert sample_units(SMALL)[0].files == ("era5_single_levels_2024-01.nc", "era5_pressure_levels_2024-01.nc")
    single = sample_units(SMALL.model_copy(update={"layout": "single", "levels": ()}))
    assert [unit.id for unit in single[:3]] == ["2024-01-30", "2024-01-31", "2024-02-01"]
    assert single[0].files[0] == "nc_u10/ERA5_2024-01-30T00_00_00_u10.nc"
    assert len(single[0].files) == 24 * len(SINGLE_LEVEL)


def test_cds_files_decode_to_the_fields(written: Path, tmp_path: Path) -> None:
    members = unzipped(written / "era5_single_levels_2024-01.nc", tmp_path)
    assert sorted(path.name for path in members) == [
        "data_stream-oper_stepType-accum.nc",
        "data_stream-oper_stepType-instant.nc",
    ]
    truth = fields(SMALL, date(2024, 1, 30), date(2024, 1, 31)).rename(time="valid_time", level="pressure_level")
    paths = [*members, written / "era5_pressure_levels_2024-01.nc"]
    seen: set[str] = set()
    for path in paths:
        with xr.open_dataset(path) as data:
            assert data.expver.values.tolist() == ["0001"] * 48
            assert data.number.item() == 0
            for name in data.data_vars:
                np.testing.assert_array_equal(data[name], truth[name])
                seen.add(str(name))
            for axis in ("valid_time", "latitude", "longitude"):
                np.testing.assert_array_equal(data[axis], truth[axis])
    assert seen == {*SINGLE_LEVEL, *PRESSURE_LEVEL}


@pytest.mark.parametrize(
    ("real", "ours", "variables"),
    [
        ("new_cds/indonesia_ssrd_accum_24x171x471.nc", "data_stream-oper_stepType-accum.nc", ("ssrd",)),
        ("new_cds/maroc_tp_accum_daily_366x61x65.nc", "data_stream-oper_stepType-accum.nc", ("tp",)),
        ("new_cds/bengal_u10v10_era5t_gappy_30x61x73.nc", "data_stream-oper_stepType-instant.nc", ("u10", "v10")),
        ("new_cds/california_ztuv_pl_270x8x9x9.nc", "era5_pressure_levels_2024-01.nc", ("z", "t", "u", "v")),
    ],
)
def test_headers_equal_those_of_real_files(
    era5_data: Path, written: Path, tmp_path: Path, real: str, ours: str, variables: tuple[str, ...]
) -> None:
    if ours.startswith("data_stream"):
        unzipped(written / "era5_single_levels_2024-01.nc", tmp_path)
        ours_path = tmp_path / ours
    else:
        ours_path = written / ours
    with netCDF4.Dataset(era5_data / real) as theirs, netCDF4.Dataset(ours_path) as mine:
        assert theirs.ncattrs() == mine.ncattrs()
        assert list(theirs.dimensions) == list(mine.dimensions)
        for name in [*(n for n in theirs.variables if n not in variables), *variables]:
            a, b = theirs[name], mine[name]
            assert (a.dtype, a.dimensions, a.ncattrs()) == (b.dtype, b.dimensions, b.ncattrs()), name
            for key in a.ncattrs():
                grid_dependent = re.search("GridPoint|Nx|Ny|numberOfPoints|Increment|FillValue", key)
                assert grid_dependent or a.getncattr(key) == b.getncattr(key), (name, key)
            assert a.filters()["shuffle"] == b.filters()["shuffle"]


def test_classic_files_are_packed_to_half_a_step(tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"layout": "classic", "step_hours": 6})
    unit = sample_units(config)[0]
    write_sample_unit(config, unit, tmp_path)
    truth = fields(config, date(2024, 1, 30), date(2024, 1, 31)).sortby("level")
    for file, names in zip(unit.files, (SINGLE_LEVEL, PRESSURE_LEVEL), strict=True):
        with netCDF4.Dataset(tmp_path / file) as raw, xr.open_dataset(tmp_path / file) as data:
            assert raw.data_model == "NETCDF3_64BIT_OFFSET"
            assert raw["time"].dtype == np.int32
            np.testing.assert_array_equal(data.time, truth.time)
            for name in names:
                assert raw[name].dtype == np.int16
                error = abs(data[name] - truth[name].astype("f8"))
                assert float(error.max()) <= 0.5001 * raw[name].scale_factor
                np.testing.assert_array_equal(data[name].isnull(), truth[name].isnull())


def test_single_files_hold_one_variable_at_one_step(tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"layout": "single", "step_hours": 6, "resolution": 3.0})
    unit = sample_units(config)[0]
    write_sample_unit(config, unit, tmp_path)
    truth = fields(config, unit.first)
    for name in ("t2m", "r"):
        with xr.open_dataset(tmp_path / f"nc_{name}/ERA5_2024-01-30T18_00_00_{name}.nc") as data:
            assert list(data.data_vars) == [name]
            np.testing.assert_array_equal(data[name], truth[name].isel(time=slice(3, 4)))


def test_preliminary_steps_are_the_newest_third_of_the_last_month(tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"step_hours": 6, "resolution": 3.0, "start": date(2024, 1, 31), "days": 4})
    january, february = sample_units(config)[:2]
    for unit in (january, february):
        write_sample_unit(config, unit, tmp_path, preliminary=True)
    with xr.open_dataset(tmp_path / january.files[1]) as data:
        assert set(data.expver.values) == {"0001"}
    with xr.open_dataset(tmp_path / february.files[1]) as data:
        assert data.expver.values.tolist() == ["0001"] * 8 + ["0005"] * 4
    classic = config.model_copy(update={"layout": "classic"})
    write_sample_unit(classic, sample_units(classic)[1], tmp_path / "classic", preliminary=True)
    with xr.open_dataset(tmp_path / "classic" / february.files[0]) as data:
        assert data.expver.values.tolist() == [1, 5]
        final = data.msl.sel(expver=1).notnull().all(["latitude", "longitude"])
        early = data.msl.sel(expver=5).notnull().all(["latitude", "longitude"])
        assert final.values.tolist() == [True] * 8 + [False] * 4
        assert early.values.tolist() == [False] * 8 + [True] * 4


# Captions


def test_regions_tile_the_globe() -> None:
    latitude, longitude = np.meshgrid(np.arange(-89.5, 90), np.arange(-179.5, 180))
    covered = np.zeros(latitude.shape, dtype=int)
    for north, west, south, east in REGIONS.values():
        covered += (latitude < north) & (latitude > south) & (longitude > west) & (longitude < east)
    assert (covered == 1).all()


@pytest.fixture(scope="module")
def from_files(written: Path, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """The single-level variables as xarray reads them from the files."""
    parts = []
    for month in ("2024-01", "2024-02"):
        members = unzipped(written / f"era5_single_levels_{month}.nc", tmp_path_factory.mktemp(month))
        parts.append(xr.merge([xr.load_dataset(path) for path in members], compat="override"))
    return xr.concat(parts, "valid_time").astype("f8")


def truth_of(written: Path, day: str) -> dict[tuple[str, str, str], float]:
    with (written / f"captions_truth_{day[:7]}.csv").open(newline="") as file:
        rows = csv.DictReader(file)
        return {(r["region"], r["variable"], r["statistic"]): float(r["value"]) for r in rows if r["date"] == day}


def recomputed(data: xr.Dataset, day: str, region: str) -> dict[tuple[str, str], float]:
    """The statistics of a region and day, by xarray, from the files."""
    north, west, south, east = REGIONS[region]
    inside = (data.latitude <= north) & (data.latitude > south) & (data.longitude >= west) & (data.longitude < east)
    box = data.sel(valid_time=day).where(inside, drop=True)
    weighted = box.weighted(np.cos(np.radians(box.latitude)))
    mean = weighted.mean()
    wind = np.hypot(box.u10, box.v10)
    totals = 1000 * box.tp.sum("valid_time")
    spot = box.msl.where(box.msl == box.msl.min(), drop=True)
    area = totals.weighted(np.cos(np.radians(box.latitude)))
    return {
        ("t2m", "max"): float(box.t2m.max()) - 273.15,
        ("t2m", "min"): float(box.t2m.min()) - 273.15,
        ("t2m", "mean"): float(mean.t2m) - 273.15,
        ("wind10", "max"): float(wind.max()),
        ("wind10", "mean"): float(wind.weighted(np.cos(np.radians(box.latitude))).mean()),
        ("msl", "min"): float(box.msl.min()) / 100,
        ("msl", "min_latitude"): float(spot.latitude[0]),
        ("msl", "min_longitude"): float(spot.longitude[0]),
        ("msl", "max"): float(box.msl.max()) / 100,
        ("msl", "mean"): float(mean.msl) / 100,
        ("tp", "max_of_day_total"): float(totals.max()),
        ("tp", "mean_of_day_total"): float(area.mean()),
        ("tp", "area_with_1mm"): 100 * float((totals >= 1).weighted(np.cos(np.radians(box.latitude))).mean()),
    }


def test_the_truth_is_what_the_files_hold(written: Path, from_files: xr.Dataset) -> None:
    for day, before in (("2024-01-31", "2024-01-30"), ("2024-02-01", "2024-01-31")):
        truth = truth_of(written, day)
        regions = {region for region, _, _ in truth}
        assert {"Iberia", "North Sea", "Alps and Germany"} <= regions
        for region in regions:
            now, then = recomputed(from_files, day, region), recomputed(from_files, before, region)
            for key, value in now.items():
                assert truth[region, *key] == pytest.approx(value, abs=2e-3), (day, region, key)
            for name in ("t2m", "msl"):
                change = now[name, "mean"] - then[name, "mean"]
                assert truth[region, name, "mean_change"] == pytest.approx(change, abs=2e-3)


def test_every_number_in_a_caption_is_a_rounded_truth(written: Path) -> None:
    checked = 0
    for month in ("2024-01", "2024-02"):
        with (written / f"captions_{month}.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            truth = truth_of(written, row["date"])
            for event in json.loads(row["event description"]):
                assert set(event) == {"region", "description"}
                values = {key[1:]: value for key, value in truth.items() if key[0] == event["region"]}
                checked += check_numbers(event["description"], values)
    assert checked > 100


def check_numbers(text: str, values: dict[tuple[str, str], float]) -> int:
    """Assert that each number with a unit is some statistic of that unit, rounded; return how many there were."""
    wind = [value for (name, _), value in values.items() if name == "wind10"]
    of = {
        "°C": [value for (name, how), value in values.items() if name in ("t2m", "sst") and how != "mean_change"],
        "degrees": [abs(values.get(("t2m", "mean_change"), np.nan))],
        "km/h": [3.6 * speed for speed in wind],
        "m/s": wind,
        "hPa": [abs(value) for (name, _), value in values.items() if name == "msl"],
        "mm": [value for (name, _), value in values.items() if name == "tp"] + [1.0],
        "%": [value for (name, _), value in values.items()],
        "°N": [values["msl", "min_latitude"]],
        "°E": [values["msl", "min_longitude"]],
        "°W": [-values["msl", "min_longitude"]],
    }
    found = re.findall(r"(-?\d+(?:\.\d)?) ?(°C|degrees|km/h|m/s|hPa|mm|%|°N|°E|°W)", text)
    for number, unit in found:
        half = 0.05 if "." in number else 0.5
        assert any(abs(float(number) - value) <= half + 1e-3 for value in of[unit]), (number, unit, text)
    return len(found)


def test_captions_vary_and_compare_only_with_days_that_exist(written: Path) -> None:
    texts: list[str] = []
    for month in ("2024-01", "2024-02"):
        with (written / f"captions_{month}.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        texts += [e["description"] for row in rows for e in json.loads(row["event description"])]
        if month == "2024-01":
            first = rows[0]["event description"]
            assert "day before" not in first
            assert "previous day" not in first
    assert len(set(texts)) > 0.9 * len(texts)
    assert max(map(len, texts)) > 3 * min(map(len, texts))
    assert not [t for t in texts if "nan" in t.lower()]


def test_a_unit_of_captions_can_be_written_alone(written: Path, tmp_path: Path) -> None:
    unit: SampleUnit = sample_units(SMALL)[-1]
    write_sample_unit(SMALL, unit, tmp_path)
    for file in unit.files:
        assert (tmp_path / file).read_bytes() == (written / file).read_bytes()
