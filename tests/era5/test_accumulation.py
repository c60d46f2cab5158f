"""Amounts since 00 UTC, of an hour or of a month as rates, and files whose amounts are not what the recipe says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from configs.weather import Recipe, StoreLayout
from tasks.era5.accumulation import Evidence
from tasks.era5.channels import Channel
from tests.era5.raw_files import (
    Store,
    field,
    hours,
    ingest,
    recipe,
    scan,
    ssrd,
    stored,
    sunshine,
    totals,
    write_cds,
    write_classic,
)

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
