"""What lies in the store is what the files say: exactly, or converted as the recipe says."""

from __future__ import annotations

import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from configs.weather import Recipe, StoreLayout
from storage.hashing import digest
from storage.window_store import SIDE_ARRAYS
from tasks.era5 import rows, source_files
from tasks.era5.accumulation import Evidence
from tasks.era5.block import block_identity, list_blocks, write_block
from tasks.era5.channels import Channel
from tasks.era5.source_files import SourceFiles
from tests.era5.raw_files import (
    LATITUDE,
    LAYOUT,
    LONGITUDE,
    Scanned,
    Store,
    field,
    hours,
    ingest,
    recipe,
    scan,
    sha256,
    write_cds,
    write_classic,
)

DAY = hours("2024-01-01T00", 24)


def stored(store: Store, channel: str) -> xr.DataArray:
    return store.data.data.sel(channel=channel)


def assert_holds(store: Store, path: Path) -> None:
    """Compare every value of the store with xarray's own reading of a file."""
    with xr.open_dataset(path, decode_timedelta=False) as data:
        if "expver" in data.dims:
            data = data.sel(expver=1).combine_first(data.sel(expver=5))
        if "date" in data.dims:
            months = [f"{d // 10_000}-{d // 100 % 100:02}-01" for d in data.date.values]
            data = data.assign_coords(date=np.array(months, "M8[ns]"))
        data = data.rename({n: "time" for n in ("valid_time", "date") if n in data.dims})
        data = data.assign_coords(longitude=data.longitude.round(4) % 360).sortby("longitude")
        ours = store.data.sel(time=data.time.values)
        ours = ours.assign_coords(longitude=ours.longitude % 360).sortby("longitude").sortby("latitude")
        np.testing.assert_allclose(ours.longitude, data.longitude, atol=1e-4)
        seen = []
        for name in ours.channel.values:
            variable, _, level = str(name).partition("@")
            if variable in data:
                wanted = data[variable].sel(pressure_level=float(level)) if level else data[variable]
                wanted = wanted.transpose("time", "latitude", "longitude").sortby("latitude").astype(np.float32)
                np.testing.assert_array_equal(ours.data.sel(channel=name).values, wanted.values)
                assert ours.valid.sel(channel=name).all()
                seen.append(variable)
        assert set(seen) == {str(name) for name in data.data_vars}


REAL = {
    "classic/iberia_monthly_u10_d2m_t2m_24x91x141.nc": recipe(),
    "classic/mediterranean_expver_dim_514x2x9x21.nc": recipe(),
    "edge/moda_date_dim_int64_490x2x3.nc": recipe(),
    "new_cds/bengal_u10v10_era5t_gappy_30x61x73.nc": recipe(),
    "new_cds/brazil_moda_tp_avgad_1023x46x37.nc": recipe(),
    "new_cds/california_ztuv_pl_270x8x9x9.nc": recipe(),
    "new_cds/europe_tquv_pl_12x5x21x31.nc": recipe(),
    "new_cds/indonesia_ssrd_accum_24x171x471.nc": recipe({"variable": "ssrd", "accumulation": "since_00utc"}),
    "new_cds/maroc_t2m_instant_daily_366x61x65.nc": recipe(),
    "new_cds/maroc_tp_accum_daily_366x61x65.nc": recipe({"variable": "tp", "accumulation": "hourly"}),
}


@pytest.mark.long
@pytest.mark.parametrize("name", REAL)
def test_real_files_are_stored_exactly(era5_data: Path, tmp_path: Path, name: str) -> None:
    path = era5_data / name
    store = ingest(tmp_path, path, recipe=REAL[name], layout=StoreLayout())
    assert_holds(store, path)
    assert int(store.data.valid.sum()) == store.total("valid")
    assert set(store.data.source.values[store.data.valid.values].tolist()) == {int(sha256(path)[:16], 16)}


@pytest.mark.long
def test_real_files_of_one_place_make_one_store(era5_data: Path, tmp_path: Path) -> None:
    paths = sorted((era5_data / "new_cds").glob("indonesia*.nc"))
    store = ingest(tmp_path, *paths, recipe=REAL["new_cds/indonesia_ssrd_accum_24x171x471.nc"], layout=StoreLayout())
    for path in paths:
        assert_holds(store, path)
    assert store.total("valid") == 24 + 3 * 4


def test_a_real_archive_is_stored_as_its_members(era5_data: Path, tmp_path: Path) -> None:
    members = [era5_data / "new_cds" / f"maroc_{n}_daily_366x61x65.nc" for n in ("t2m_instant", "tp_accum")]
    path = tmp_path / "request.nc"
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.write(member, member.name)
    store = ingest(
        tmp_path, path, recipe=recipe("t2m", {"variable": "tp", "accumulation": "hourly"}), layout=StoreLayout()
    )
    assert store.data.channel.values.tolist() == ["t2m", "tp"]
    for member in members:
        with xr.open_dataset(member) as data:
            name = str(next(iter(data.data_vars)))
            np.testing.assert_array_equal(
                stored(store, name).sel(time=data.valid_time.values).values, data[name].values
            )


@pytest.mark.parametrize("chunks", [None, (1, 6, 8), (5, 4, 3), (24, 2, 8), (48, 6, 8)], ids=str)
@pytest.mark.parametrize("north_up", [True, False])
@pytest.mark.parametrize("west", [-2, 5, 358])
def test_any_chunks_and_any_orientation(
    tmp_path: Path, chunks: tuple[int, ...] | None, north_up: bool, west: int
) -> None:
    latitude = LATITUDE if north_up else LATITUDE[::-1]
    longitude = (west + 0.5 * np.arange(8) + 180) % 360 - 180
    times = hours("2024-01-01T07", 48)
    path = write_cds(
        tmp_path / "a.nc", {"t2m": field(48)}, times, latitude=latitude, longitude=longitude, chunks=chunks
    )
    assert_holds(ingest(tmp_path, path), path)


@pytest.mark.parametrize("chunks", [(1, 1, 6, 8), (1, 5, 3, 8), (7, 2, 4, 5), (24, 5, 6, 8)])
def test_levels_in_shared_chunks(tmp_path: Path, chunks: tuple[int, ...]) -> None:
    levels = (1000, 925, 850, 700, 500)
    path = write_cds(tmp_path / "a.nc", {"t": field(24, 5)}, DAY, levels=levels, chunks=chunks)
    store = ingest(tmp_path, path, recipe=recipe({"variable": "t", "levels": [500, 925]}))
    assert store.data.channel.values.tolist() == ["t@500", "t@925"]
    assert_holds(store, path)


@pytest.mark.filterwarnings("ignore:variable 'x' has multiple fill values")
@pytest.mark.parametrize(
    ("dtype", "attributes"),
    [
        ("i2", {"scale_factor": np.float64(0.013), "add_offset": np.float64(271.3), "_FillValue": np.int16(-32767)}),
        ("i2", {"scale_factor": np.float32(0.013), "add_offset": np.float32(271.3), "missing_value": np.int16(7)}),
        ("i2", {"scale_factor": np.float64(0.01)}),
        (">i2", {"scale_factor": np.float64(0.01), "add_offset": np.float64(3), "_FillValue": np.int16(-5)}),
        ("u1", {"scale_factor": np.float64(0.5), "_FillValue": np.uint8(255)}),
        ("i4", {"scale_factor": np.float64(1e-7), "add_offset": np.float64(273.15), "_FillValue": np.int32(3)}),
        ("f4", {"_FillValue": np.float32(-9999), "missing_value": np.float32(1e20)}),
        ("f8", {"_FillValue": np.float64(-9999)}),
        (">f4", {}),
    ],
)  # fmt: skip
def test_values_are_decoded_as_xarray_does(tmp_path: Path, dtype: str, attributes: dict[str, np.number]) -> None:
    random = np.random.default_rng(0)
    raw = random.integers(-100 if dtype != "u1" else 0, 100, (4, 6, 8)).astype(dtype)
    missing = attributes.get("_FillValue", attributes.get("missing_value", 0))
    raw[0, 0, :3] = missing
    data = xr.Dataset(
        {"x": (("time", "latitude", "longitude"), raw, attributes)},
        {"time": DAY[:4].astype("M8[ns]"), "latitude": LATITUDE, "longitude": LONGITUDE},
    )
    data.to_netcdf(tmp_path / "x.nc", encoding={"x": {"endian": "big"}} if dtype[0] == ">" else {})
    assert_holds(ingest(tmp_path, tmp_path / "x.nc"), tmp_path / "x.nc")


@pytest.mark.long
def test_hundreds_of_one_step_files_make_one_store(tmp_path: Path) -> None:
    times, values = hours("2024-01-01T00", 100), {name: field(100, seed=i) for i, name in enumerate(("u10", "v10"))}
    files = [
        write_cds(tmp_path / f"{name}_{i}.nc", {name: values[name][i : i + 1]}, times[i : i + 1])
        for i in range(100)
        for name in values
    ]
    store = ingest(tmp_path, *files)
    for name, wanted in values.items():
        np.testing.assert_array_equal(stored(store, name).sel(time=times.astype("M8[ns]")).values, wanted)


@pytest.mark.parametrize("final_first", [True, False])
def test_final_values_replace_preliminary_ones(tmp_path: Path, final_first: bool) -> None:
    old, new = field(24, seed=1), field(24, seed=2)
    names = ("a.nc", "b.nc") if final_first else ("b.nc", "a.nc")
    final = write_cds(tmp_path / names[0], {"t2m": new[:12]}, DAY[:12])
    preliminary = write_cds(tmp_path / names[1], {"t2m": old}, DAY, expver="0005")
    store = ingest(tmp_path, final, preliminary)
    np.testing.assert_array_equal(stored(store, "t2m").values, np.concatenate([new[:12], old[12:]]))
    assert store.data.expver.values[:, 0].tolist() == [1] * 12 + [5] * 12
    assert store.total("preliminary") == 12


def test_files_that_overlap_must_agree(tmp_path: Path) -> None:
    values = field(24)
    first = write_cds(tmp_path / "first.nc", {"t2m": values[:16]}, DAY[:16])
    second = write_cds(tmp_path / "second.nc", {"t2m": values[8:]}, DAY[8:])
    store = ingest(tmp_path / "equal", *_copies(tmp_path / "equal", first, second))
    np.testing.assert_array_equal(stored(store, "t2m").values, values)
    assert store.total("compared") == 8
    smallest = min(sha256(first), sha256(second))
    assert set(store.data.source.values[8:16, 0].tolist()) == {int(smallest[:16], 16)}

    values[12, 3, 4] += 2.5
    third = write_cds(tmp_path / "third.nc", {"t2m": values[8:]}, DAY[8:])
    with pytest.raises(
        ValueError,
        match=r"(first|third)\.nc and \w+\.nc both hold t2m at 2024-01-01T12:00 UTC, and they differ by up to 2\.5",
    ):
        ingest(tmp_path / "different", *_copies(tmp_path / "different", first, third))


def _copies(folder: Path, *paths: Path) -> list[Path]:
    folder.mkdir()
    return [Path(shutil.copy(path, folder)) for path in paths]


def totals(per_hour: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Accumulate hourly amounts since 00 UTC as ERA5-Land does; 00 UTC holds the day before."""
    sums = np.zeros_like(per_hour, dtype=np.float64)
    for i, time in enumerate(times.astype("datetime64[h]").astype(int)):
        sums[i] = per_hour[i] + (sums[i - 1] if i and time % 24 != 1 else 0)
    return sums.astype(np.float32)


def sunshine(times: np.ndarray, seed: int = 0, sunrise: int = 6) -> np.ndarray:
    """Hourly amounts with a daily cycle, as radiation has."""
    hour = times.astype("datetime64[h]").astype(int) % 24
    cycle = np.clip(np.sin((hour - sunrise) / 12 * np.pi), 0, None)[:, None, None]
    clouds = np.random.default_rng(seed).uniform(0.9, 1, (len(times), 6, 8))
    return (3.6e6 * cycle * clouds).astype(np.float32)


def ssrd(kind: str, rate: bool = True) -> Recipe:
    return recipe({"variable": "ssrd", "accumulation": kind, "rate": rate})


SUN = hours("2024-06-01T01", 71)


@pytest.fixture
def land(tmp_path: Path) -> Path:
    """Radiation since 00 UTC, hourly over three days."""
    values = totals(sunshine(SUN), SUN)
    return write_cds(tmp_path / "land.nc", {"ssrd": values}, SUN, units="J m**-2", step_type="accum")


@pytest.mark.parametrize("shard_time", [4, 24])
def test_rates_of_totals_since_00_utc(tmp_path: Path, land: Path, shard_time: int) -> None:
    store = ingest(tmp_path, land, recipe=ssrd("since_00utc"), layout=StoreLayout(shard_time=shard_time))
    with xr.open_dataset(land) as data:
        total = data.ssrd.values
    rate = np.concatenate([total[:1], np.diff(total, axis=0)]) / np.float32(3600)
    first_hours = SUN.astype("datetime64[h]").astype(int) % 24 == 1
    rate[first_hours] = total[first_hours] / np.float32(3600)
    np.testing.assert_array_equal(stored(store, "ssrd").sel(time=SUN.astype("M8[ns]")).values, rate)
    np.testing.assert_allclose(rate, sunshine(SUN) / 3600, atol=0.1)
    assert store.total("without_previous") == 0


def test_a_rate_without_its_predecessor_is_missing_and_counted(tmp_path: Path, land: Path) -> None:
    with xr.open_dataset(land) as data:
        kept = np.r_[3:20, 23:71]
        values, times = data.ssrd.values[kept], SUN[kept]
    path = write_cds(tmp_path / "gappy.nc", {"ssrd": values}, times, units="J m**-2", step_type="accum")
    store = ingest(tmp_path, path, recipe=ssrd("since_00utc"))
    invalid = [str(t)[:13] for t in store.data.time.values[~store.data.valid.values[:, 0]]]
    assert invalid == [
        *(f"2024-06-01T{h:02}" for h in (0, 1, 2, 3, 4, 21, 22, 23)),
        "2024-06-02T00",  # 23 UTC is missing, so the last hour of the day is unknown
    ]
    assert (store.total("without_previous"), store.total("missing")) == (2, 7)


def test_rates_at_coarser_steps(tmp_path: Path, land: Path) -> None:
    with xr.open_dataset(land) as data:
        every = slice(2, None, 3)  # 03, 06, ...
        values, times = data.ssrd.values[every], SUN[every]
    path = write_cds(tmp_path / "three.nc", {"ssrd": values}, times, units="J m**-2", step_type="accum")
    store = ingest(tmp_path, path, recipe=ssrd("since_00utc"))
    mean = sunshine(SUN)[:69].reshape(23, 3, 6, 8).mean(axis=1) / 3600
    np.testing.assert_allclose(stored(store, "ssrd").sel(time=times.astype("M8[ns]")).values, mean, atol=0.1)


@pytest.mark.parametrize(("kind", "divisor"), [("hourly", 3600), ("mean_rate", 1)])
@pytest.mark.parametrize("step", [1, 6])
def test_rates_of_hourly_values_and_of_rates(tmp_path: Path, kind: str, divisor: int, step: int) -> None:
    times = hours("2024-06-01T00", 48 // step, step)
    values = sunshine(times)
    path = write_cds(tmp_path / "a.nc", {"ssrd": values}, times, units="J m**-2", step_type="accum")
    for folder, wanted, expected in (
        ("rate", ssrd(kind), values / np.float32(divisor)),
        ("plain", ssrd(kind, rate=False), values),
    ):
        store = ingest(tmp_path / folder, path, recipe=wanted)
        np.testing.assert_array_equal(stored(store, "ssrd").sel(time=times.astype("M8[ns]")).values, expected)


def test_rates_of_real_monthly_means_are_of_whole_days(era5_data: Path, tmp_path: Path) -> None:
    path = era5_data / "new_cds" / "brazil_moda_tp_avgad_1023x46x37.nc"
    wanted = recipe({"variable": "tp", "accumulation": "since_00utc", "rate": True})
    store = ingest(tmp_path, path, recipe=wanted, layout=StoreLayout())
    with xr.open_dataset(path) as data:
        per_day = data.tp.sortby("latitude").values
    assert (store.total("valid"), store.total("without_previous")) == (len(per_day), 0)
    rate = stored(store, "tp").where(store.data.valid.sel(channel="tp"), drop=True).sortby("latitude").values
    np.testing.assert_array_equal(rate, per_day / np.float32(86_400))
    with pytest.raises(ValueError, match=r"tp is a mean of daily totals in brazil_moda.*, not hourly"):
        ingest(tmp_path / "hourly", path, recipe=recipe({"variable": "tp", "accumulation": "hourly", "rate": True}))


@pytest.mark.parametrize(
    "stamps",
    [["2024-01-01T06", "2024-02-01T06", "2024-03-01T06"], ["2024-01-01T00", "2024-02-01T06"], ["2024-01-01T06"]],
)
def test_rates_of_monthly_means_are_of_whole_days_whatever_their_stamp(tmp_path: Path, stamps: list[str]) -> None:
    values = np.full((len(stamps), 6, 8), 0.0048, np.float32)
    path = write_cds(tmp_path / "a.nc", {"tp": values}, np.array(stamps, "M8[s]"), units="m", step_type="avgad")
    store = ingest(tmp_path, path, recipe=recipe({"variable": "tp", "accumulation": "since_00utc", "rate": True}))
    assert (store.total("valid"), store.total("without_previous")) == (len(stamps), 0)
    rate = stored(store, "tp").values[store.data.valid.values[:, 0]]
    np.testing.assert_array_equal(rate, values / np.float32(86_400))


@pytest.mark.parametrize(("kind", "hour"), [("hourly", 0), ("hourly", 6), ("since_00utc", 6)])
def test_monthly_values_of_unknown_length_have_no_rate(tmp_path: Path, kind: str, hour: int) -> None:
    times = np.array([f"2024-{month:02}-01T{hour:02}" for month in (1, 2, 3)], "M8[s]")
    path = write_classic(tmp_path / "classic.nc", {"tp": field(3)}, times, units="m")
    with pytest.raises(ValueError, match=rf"classic\.nc: tp at 2024-01-01T{hour:02}:00 UTC is .* declare mean_rate"):
        ingest(tmp_path, path, recipe=recipe({"variable": "tp", "accumulation": kind, "rate": True}))
    assert ingest(tmp_path, path, recipe=recipe({"variable": "tp", "accumulation": kind})).total("valid") == 3


def test_a_months_total_at_midnight_is_of_a_whole_day(tmp_path: Path) -> None:
    times = np.array([f"2024-{month:02}-01T00" for month in (1, 2, 3)], "M8[s]")
    path = write_cds(tmp_path / "a.nc", {"tp": field(3)}, times, units="m", step_type="accum")
    store = ingest(tmp_path, path, recipe=recipe({"variable": "tp", "accumulation": "since_00utc", "rate": True}))
    rate = stored(store, "tp").sel(time=times.astype("M8[ns]")).values
    np.testing.assert_array_equal(rate, field(3) / np.float32(86_400))


def test_totals_that_fall_within_a_day_are_refused(tmp_path: Path) -> None:
    times = hours("2024-06-01T00", 24)
    path = write_cds(tmp_path / "era5.nc", {"ssrd": sunshine(times)}, times, units="J m**-2", step_type="accum")
    with pytest.raises(ValueError, match=r"era5\.nc: ssrd falls between 2024-06-01T1\d:00 UTC and .*; it looks hourly"):
        ingest(tmp_path, path, recipe=ssrd("since_00utc"))


@pytest.mark.parametrize(("shard_time", "sunrise"), [(24, 6), (24, 0), (8, 0)])
def test_hourly_values_that_only_grow_are_refused(tmp_path: Path, shard_time: int, sunrise: int) -> None:
    values = totals(sunshine(SUN, sunrise=sunrise), SUN)
    path = write_cds(tmp_path / "land.nc", {"ssrd": values}, SUN, units="J m**-2", step_type="accum")
    with pytest.raises(ValueError, match=r"land\.nc: ssrd never falls from .* it looks like a total since 00 UTC"):
        ingest(tmp_path, path, recipe=ssrd("hourly"), layout=StoreLayout(shard_time=shard_time))


def test_real_era5_land_declared_as_era5_is_refused(era5_data: Path, tmp_path: Path) -> None:
    path = era5_data / "new_cds" / "indonesia_ssrd_accum_24x171x471.nc"
    with pytest.raises(ValueError, match=r"ssrd never falls from 2023-07-10T01:00 UTC to 2023-07-10T23:00 UTC"):
        ingest(tmp_path, path, recipe=ssrd("hourly"), layout=StoreLayout())


@pytest.mark.parametrize("kind", ["hourly", "since_00utc"])
def test_packing_noise_and_dry_days_prove_nothing(tmp_path: Path, kind: str) -> None:
    times = hours("2024-06-01T00", 48)
    noise = np.random.default_rng(0).normal(0, 1e-7, (48, 6, 8)).astype(np.float32)
    rain = noise.copy()
    rain[20, 0, 0] += 0.01
    if kind == "since_00utc":
        rain[21:25, 0, 0] += 0.01
    flux = np.cos(np.arange(48) / 4)[:, None, None] * np.ones((1, 6, 8), np.float32)  # both signs
    path = write_cds(tmp_path / "a.nc", {"tp": rain, "slhf": flux}, times, units="m", step_type="accum")
    both = recipe(*({"variable": name, "accumulation": kind} for name in ("tp", "slhf")))
    assert ingest(tmp_path, path, recipe=both).total("valid") == 96


def evidence_of(store: Store, name: str) -> Evidence:
    found = Evidence()
    for report in store.reports:
        found.merge(report.changes[name])
    return found


def test_totals_that_never_fall_are_told_by_enough_hours_and_enough_midnights() -> None:
    def seen(hours: int, over_midnight: int) -> Evidence:
        found = Evidence()
        for hour in range(hours):
            found.add(hour, over_midnight if hour == 0 else 500, 0)
        return found

    assert seen(24, 500).never_falls()
    assert not seen(24, 0).never_falls()
    assert not seen(2, 500).never_falls()


def channel_of(path: Path, wanted: Recipe) -> Channel:
    return scan(path).timeline(wanted).channels[0]


@pytest.mark.input_shape(format="NetCDF", shape="ERA5-Land totals that sink by the noise of packing", outcome="read")
def test_totals_that_sink_by_packing_noise_are_totals(tmp_path: Path) -> None:
    times = hours("2024-06-01T00", 96)
    dice = np.random.default_rng(0)
    drizzle = dice.uniform(0, 1e-5, (96, 6, 8)) * (dice.random((96, 1, 1)) < 0.5)  # nothing in half of all hours
    clean = totals(drizzle, times)
    tp = (clean + dice.uniform(-2e-8, 2e-8, clean.shape)).astype(np.float32)
    path = write_cds(tmp_path / "land.nc", {"tp": tp}, times, units="m", step_type="accum")
    assert (np.diff(tp, axis=0) < 0).mean() > 0.1, "it does sink"
    wanted = recipe({"variable": "tp", "accumulation": "since_00utc", "rate": True})
    store = ingest(tmp_path, path, recipe=wanted)
    after = times[1:].astype("M8[h]").astype(int) % 24 != 1
    rate = np.diff(tp, axis=0)[after] / np.float32(3600)
    got = stored(store, "tp").sel(time=times[1:][after].astype("M8[ns]")).values
    np.testing.assert_array_equal(got, rate)
    assert evidence_of(store, "tp").form() == "totals since 00 UTC"
    assert "declare since_00utc" in (
        evidence_of(store, "tp").contradiction(channel_of(path, recipe({"variable": "tp", "accumulation": "hourly"})))
        or ""
    )
    with pytest.raises(ValueError, match=r"never falls from .* it looks like a total since 00 UTC"):
        ingest(tmp_path / "hourly", path, recipe=recipe({"variable": "tp", "accumulation": "hourly"}))


@pytest.mark.parametrize("decay", [0.5, 0.8, 0.97])
@pytest.mark.input_shape(format="NetCDF", shape="hourly rain that grows until midnight and dies down", outcome="read")
def test_hourly_rain_that_grows_until_midnight_is_hourly(tmp_path: Path, decay: float) -> None:
    times = hours("2024-06-01T01", 48)
    rain = np.r_[np.arange(1, 25) / 24, decay ** np.arange(1, 25)][:, None, None]
    rain = (rain * np.random.default_rng(0).uniform(1e-3, 5e-3, (6, 8))).astype(np.float32)
    path = write_cds(tmp_path / "era5.nc", {"tp": rain}, times, units="m", step_type="accum")
    wanted = recipe({"variable": "tp", "accumulation": "hourly"})
    store = ingest(tmp_path, path, recipe=wanted)
    np.testing.assert_array_equal(stored(store, "tp").sel(time=times.astype("M8[ns]")).values, rain)
    assert evidence_of(store, "tp").contradiction(channel_of(path, wanted)) is None
    assert evidence_of(store, "tp").form() == "hourly values"


def test_a_day_alone_that_only_grows_is_not_taken_for_hourly(tmp_path: Path) -> None:
    times = hours("2024-06-01T01", 24)
    path = write_cds(tmp_path / "a.nc", {"ssrd": totals(sunshine(times), times)}, times, step_type="accum")
    wanted = ssrd("hourly", rate=False)
    store = ingest(tmp_path, path, recipe=wanted)
    assert "declare since_00utc" in (evidence_of(store, "ssrd").contradiction(channel_of(path, wanted)) or "")


@pytest.mark.input_shape(format="NetCDF", shape="totals that go on over days", outcome="refused")
@pytest.mark.parametrize("kind", ["hourly", "since_00utc"])
@pytest.mark.parametrize("set_back", [False, True])
def test_totals_that_go_on_over_days_are_refused(tmp_path: Path, kind: str, set_back: bool) -> None:
    times = hours("2024-06-01T00", 72)
    rain = np.random.default_rng(0).uniform(1e-4, 1e-3, (72, 6, 8))
    tp = rain.reshape(3, 24, 6, 8).cumsum(axis=1).reshape(rain.shape) if set_back else rain.cumsum(axis=0)
    path = write_cds(tmp_path / "a.nc", {"tp": tp.astype(np.float32)}, times, units="m", step_type="accum")
    wanted = recipe({"variable": "tp", "accumulation": kind, "rate": True})
    store = ingest(tmp_path, path, recipe=wanted)
    told = evidence_of(store, "tp").contradiction(channel_of(path, wanted))
    assert "never falls, not even after 00 UTC" in (told or "")


@pytest.mark.input_shape(format="NetCDF", shape="totals since 06 and 18 UTC", outcome="refused")
def test_totals_with_other_resets_are_named_by_them(tmp_path: Path) -> None:
    times = hours("2024-06-01T00", 72)
    rain = np.random.default_rng(0).uniform(1e-4, 1e-3, (72, 6, 8)).cumsum(axis=0)
    start = (np.arange(72) - 7) // 12 * 12 + 6
    tp = (rain - np.where(start[:, None, None] < 0, 0, rain[np.maximum(start, 0)])).astype(np.float32)
    path = write_cds(tmp_path / "forecast.nc", {"tp": tp}, times, units="m", step_type="accum")
    wanted = recipe({"variable": "tp", "accumulation": "hourly"})
    evidence = evidence_of(ingest(tmp_path, path, recipe=wanted), "tp")
    assert evidence.form() == "totals since 06 and 18 UTC"
    assert "totals since 06 and 18 UTC, which cannot be stored" in (
        evidence.contradiction(channel_of(path, wanted)) or ""
    )


def test_nan_policies(tmp_path: Path) -> None:
    values = field(24)
    path = write_cds(tmp_path / "sst.nc", {"sst": values}, DAY)
    filled = ingest(tmp_path / "filled", path, recipe=recipe({"variable": "sst", "nan": 271.5}))
    np.testing.assert_array_equal(stored(filled, "sst").values, np.nan_to_num(values, nan=271.5))
    count = np.isnan(values[0]).sum()
    with pytest.raises(ValueError, match=rf"sst\.nc: sst has {count} NaN at 2024-01-01T00:00 UTC"):
        ingest(tmp_path / "refused", path, recipe=recipe({"variable": "sst", "nan": "error"}))


def test_bit_rounding_keeps_nan(tmp_path: Path) -> None:
    values = field(24)
    values[0, 0, 2:4] = np.nan, 0
    values[0, 1].view(np.uint32)[:] = 0x7FFFFFFF  # a NaN whose rounding would overflow
    path = write_cds(tmp_path / "a.nc", {"t2m": values}, DAY)
    got = stored(ingest(tmp_path, path, recipe=recipe({"variable": "t2m", "keepbits": 7})), "t2m").values
    np.testing.assert_array_equal(np.isnan(got), np.isnan(values))
    np.testing.assert_allclose(got, values, rtol=2**-8)
    assert not (got[~np.isnan(got)].view(np.uint32) & 0xFFFF).any()


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e20, -3.4e38])
@pytest.mark.input_shape(format="NetCDF", shape="infinities, or huge values that no attribute marks", outcome="refused")
def test_values_that_are_none_are_refused_by_file_and_time(tmp_path: Path, value: float) -> None:
    values = field(24)
    values[5, 1, 2] = value
    path = write_cds(tmp_path / "a.nc", {"t2m": values}, DAY)
    with pytest.raises(
        ValueError, match=r"a\.nc: t2m has the value .* at 2024-01-01T05:00 UTC; if it stands for missing"
    ):
        ingest(tmp_path, path)


def test_damage_found_while_reading_names_file_and_variable(tmp_path: Path) -> None:
    path = write_cds(
        tmp_path / "a.nc",
        {"t2m": field(24, grid=(60, 80))},
        DAY,
        latitude=np.arange(60.0, 0, -1),
        longitude=np.arange(80.0),
    )
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.nc: t2m cannot be read \(.*\); the file is damaged"):
        ingest(tmp_path, path)


def identities(files: Scanned, wanted: Recipe | None = None, layout: StoreLayout = LAYOUT) -> list[str]:
    timeline = files.timeline(wanted, layout)
    return [digest(block_identity(timeline, layout, block)) for block in list_blocks(timeline, layout)]


def test_the_identity_of_a_block_is_what_shapes_its_bytes(tmp_path: Path) -> None:
    times = hours("2024-01-01T00", 96)
    path = write_cds(tmp_path / "a.nc", {"t2m": field(96)}, times)
    before = write_cds(tmp_path / "before.nc", {"t2m": field(24, seed=1)}, times[:24] - np.timedelta64(48, "h"))
    (tmp_path / "moved").mkdir()
    moved = Path(shutil.copy(path, tmp_path / "moved" / "renamed.nc"))
    plain = identities(scan(path))
    assert len(set(plain)) == 4
    assert identities(scan(moved)) == plain
    assert identities(scan(path, before))[1:] == plain
    revised = write_cds(tmp_path / "revised.nc", {"t2m": field(24, seed=2)}, times[24:48], expver="0001")
    changed = identities(scan(path, revised))
    assert [new == old for new, old in zip(changed, plain, strict=True)] == [True, False, True, True]
    for other in (
        identities(scan(path), recipe({"variable": "t2m", "keepbits": 9})),
        identities(scan(path), layout=LAYOUT.model_copy(update={"codec": "zstd"})),
    ):
        assert set(plain).isdisjoint(other)


def test_equal_identities_are_equal_bytes(tmp_path: Path) -> None:
    times = hours("2024-01-01T00", 48)
    path = write_cds(tmp_path / "a.nc", {"t2m": field(48)}, times)
    before = write_cds(tmp_path / "before.nc", {"t2m": field(24, seed=1)}, times[:24] - np.timedelta64(24, "h"))
    ingest(tmp_path / "one", path)
    ingest(tmp_path / "two", path, before)
    for block in (0, 1):
        ours = _block_files(tmp_path / "one" / "store", block)
        theirs = _block_files(tmp_path / "two" / "store", block + 1)
        assert ours == theirs
        assert len(ours) == 2 + len(SIDE_ARRAYS)


def _block_files(store: Path, block: int) -> dict[str, bytes]:
    return {
        f"{path.relative_to(store).parts[0]} {path.relative_to(store).parts[3:]}": path.read_bytes()
        for path in store.glob(f"*/c/{block}/**/*")
        if path.is_file()
    }


def test_the_identity_holds_the_step_before_a_block(tmp_path: Path) -> None:
    times = hours("2024-06-01T01", 23)
    later = hours("2024-06-02T00", 24)
    files = []
    for seed in (1, 2):
        values = totals(sunshine(times, seed), times)
        files.append(write_cds(tmp_path / f"{seed}.nc", {"ssrd": values}, times, units="J m**-2", step_type="accum"))
    values = totals(sunshine(later), later)
    today = write_cds(tmp_path / "today.nc", {"ssrd": values}, later, units="J m**-2", step_type="accum")
    one, two = (identities(scan(file, today), ssrd("since_00utc")) for file in files)
    assert one[1] != two[1]
    plain_one, plain_two = (identities(scan(file, today), ssrd("since_00utc", rate=False)) for file in files)
    assert plain_one[1] == plain_two[1]


def test_long_chunks_are_decoded_once_by_all_workers_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = hours("2024-01-01T00", 96)
    names = ("u10", "v10", "t2m")
    path = write_cds(tmp_path / "a.nc", {n: field(96, seed=i) for i, n in enumerate(names)}, times, chunks=(96, 3, 4))
    decoded: list[int] = []
    read_box = source_files.read_box

    def counting(*args: object) -> np.ndarray:
        box = read_box(*args)  # type: ignore[arg-type]
        decoded.append(box.size)
        return box

    monkeypatch.setattr(source_files, "read_box", counting)
    scanned = scan(path)
    timeline, files = scanned.timeline(), SourceFiles(scanned.paths)

    def write(block: int) -> None:
        write_block(timeline, LAYOUT, files, tmp_path / "store", block, tmp_path / "scratch")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, list_blocks(timeline, LAYOUT)))
    assert sum(decoded) == 3 * 96 * 48
    monkeypatch.undo()
    assert_holds(ingest(tmp_path, path), path)


@pytest.mark.parametrize("planes_per_row", [1, 7, 20])
def test_chunks_larger_than_scratch_rows_and_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planes_per_row: int
) -> None:
    monkeypatch.setattr(rows, "ROW_BYTES", planes_per_row * 4 * 48)
    monkeypatch.setattr(rows, "TILE_BYTES", 100)
    path = write_cds(tmp_path / "a.nc", {"t2m": field(48)}, hours("2024-01-01T00", 48), chunks=(20, 3, 4))
    assert_holds(ingest(tmp_path, path), path)


def test_scratch_is_bounded_and_may_be_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.era5.block._MEMORY_BYTES", 0)
    times = hours("2024-01-01T00", 480)
    path = write_cds(tmp_path / "a.nc", {"t2m": field(480)}, times, chunks=(24, 6, 8))
    scanned, scratch = scan(path), tmp_path / "scratch"
    timeline, files = scanned.timeline(), SourceFiles(scanned.paths)
    for block in list_blocks(timeline, LAYOUT):
        write_block(timeline, LAYOUT, files, tmp_path / "store", block, scratch)
        held = sum(p.stat().st_size for p in scratch.rglob("*") if p.is_file() and p.suffix != ".lock")
        assert held <= 4 * 24 * 48 * 4
        if block == 10:
            shutil.rmtree(scratch)
