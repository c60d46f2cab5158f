"""Files become one regular axis, one grid, and for every plane the file steps that may fill it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.weather import Recipe, StoreLayout
from tasks.era5.catalog import ERA5T, FINAL
from tasks.era5.timeline import Timeline, build_timeline
from tests.era5.raw_files import LATITUDE, LONGITUDE, field, hours, recipe, scan, write_cds, write_classic


def offered(timeline: Timeline, channel: str) -> dict[str, list[str]]:
    """Per time of a channel the names of the sources that offer it."""
    index = [c.name for c in timeline.channels].index(channel)
    times = timeline.times.astype("datetime64[s]").astype("datetime64[m]").astype(str)
    found = {
        str(times[slot]): [timeline.sources[r["source"]].name for r in timeline.candidates(index, slot)]
        for slot in range(timeline.length)
    }
    return {time: names for time, names in found.items() if names}


@pytest.mark.parametrize(
    ("times", "step", "length"),
    [
        (hours("2024-01-01T00", 48), 3600, 48),
        (hours("2024-01-01T03", 10, step=6), 21600, 10),
        (hours("2024-01-01T00", 5)[[0, 1, 4]], 3600, 5),
        (np.array(["2024-01-01T06:30"], "M8[s]"), 3600, 1),
        (np.array(["2023-10-01", "2023-12-01", "2024-01-01"], "M8[s]"), "months", 4),
        (np.array(["2023-01-15T12", "2023-02-15T12", "2023-03-15T12"], "M8[s]"), "months", 3),
        (np.array(["2023-01-02", "2023-02-28", "2023-03-31"], "M8[s]"), 86400, 89),
        (hours("2024-01-01T12", 4, step=24), 86400, 4),
        (np.array(["2024-01-01T00:00", "2024-01-01T00:30", "2024-01-01T01:00"], "M8[s]"), 1800, 3),
    ],
)
def test_cadence_follows_from_the_times(tmp_path: Path, times: np.ndarray, step: int | str, length: int) -> None:
    path = write_cds(tmp_path / "a.nc", {"t2m": field(len(times))}, times)
    timeline = scan(path).timeline(layout=StoreLayout(shard_time=1, chunk_time=1))
    assert (timeline.cadence.step if timeline.cadence.unit == "seconds" else "months") == step
    assert timeline.length == length
    assert set(times.astype(np.int64)) <= set(timeline.times)


@pytest.mark.parametrize(
    "stamps",
    [
        pytest.param(
            ["2023-12-16T12", "2024-01-16T12", "2024-02-15T12", "2024-03-16T12", "2024-04-16T00"],
            marks=pytest.mark.input_shape(format="NetCDF", shape="monthly means stamped in mid-month", outcome="read"),
        ),
        pytest.param(
            ["2023-12-01T00", "2024-01-01T06", "2024-02-01T00", "2024-03-01T06", "2024-04-01T00"],
            marks=pytest.mark.input_shape(
                format="NetCDF", shape="monthly means at 00 UTC of one month and 06 UTC of the next", outcome="read"
            ),
        ),
        ["2023-12-31T00", "2024-01-31T00", "2024-02-29T00", "2024-03-31T00", "2024-04-30T00"],
        ["2023-12-31T23:30", "2024-01-31T23:30", "2024-02-29T23:30", "2024-03-31T23:30", "2024-04-30T23:30"],
    ],
)
def test_monthly_means_are_calendar_months_wherever_they_are_stamped(tmp_path: Path, stamps: list[str]) -> None:
    path = write_cds(tmp_path / "a.nc", {"t2m": field(5)}, np.array(stamps, "M8[s]"))
    timeline = scan(path).timeline(layout=StoreLayout(shard_time=1, chunk_time=1))
    assert (timeline.cadence.unit, timeline.length) == ("months", 5)
    assert timeline.times.astype("M8[s]").astype("M8[D]").astype(str).tolist() == [
        "2023-12-01", "2024-01-01", "2024-02-01", "2024-03-01", "2024-04-01",
    ]  # fmt: skip
    assert timeline.coverage()[0].all()


@pytest.mark.input_shape(format="NetCDF", shape="stamps at :00 in one file and :30 in another", outcome="refused")
def test_two_clocks_are_two_sources(tmp_path: Path) -> None:
    times = hours("2024-01-01T00", 24)
    whole = write_cds(tmp_path / "whole.nc", {"t2m": field(24)}, times)
    half = write_cds(tmp_path / "half.nc", {"u10": field(24)}, times + 1800)
    with pytest.raises(ValueError, match=r"\.nc at minute (0|30) and .*\.nc at minute (30|0) are two sources"):
        scan(whole, half).timeline()
    shifted = write_cds(tmp_path / "shifted.nc", {"u10": field(4)}, hours("2024-01-01T03", 4, 6))
    six = write_cds(tmp_path / "six.nc", {"t2m": field(4)}, hours("2024-01-01T00", 4, 6))
    with pytest.raises(ValueError, match=r"t2m of six\.nc and u10 of shifted\.nc are two sources"):
        scan(six, shifted).timeline()
    assert scan(whole, half).timeline(recipe("u10")).cadence.step == 3600
    by_hour = [
        write_cds(tmp_path / f"{h}.nc", {"t2m": field(3)}, hours(f"2024-01-01T{h:02}", 3, 24)) for h in (0, 6, 12, 18)
    ]
    assert scan(*by_hour).timeline().cadence.step == 6 * 3600


def test_a_time_off_the_cadence_is_named(tmp_path: Path) -> None:
    good = write_cds(tmp_path / "good.nc", {"t2m": field(24)}, hours("2024-01-01T00", 24))
    odd = write_cds(tmp_path / "odd.nc", {"t2m": field(1)}, np.array(["2024-01-02T05:07"], "M8[s]"))
    with pytest.raises(ValueError, match=r"odd\.nc has the time 2024-01-02T05:07 UTC, which does not fit"):
        scan(good, odd).timeline()


def test_a_declared_step_is_kept_and_what_does_not_fit_is_named(tmp_path: Path) -> None:
    six_hourly = write_cds(tmp_path / "six.nc", {"t2m": field(8)}, hours("2024-01-01T00", 8, 6))
    noon = write_cds(tmp_path / "three.nc", {"t2m": field(1)}, hours("2024-01-03T03", 1))
    declared = Recipe(step_hours=6)
    assert scan(six_hourly).timeline(declared).cadence.step == 6 * 3600
    assert scan(six_hourly, noon).timeline().cadence.step == 3 * 3600, "without it the axis becomes finer"
    with pytest.raises(ValueError, match=r"three\.nc has the time 2024-01-03T03:00 UTC, which does not fit"):
        scan(six_hourly, noon).timeline(declared)


@given(first=st.integers(-5000, 500_000), count=st.integers(1, 60), shard=st.sampled_from([4, 8, 24]))
def test_blocks_stay_where_they_are_when_data_are_added(
    tmp_path_factory: pytest.TempPathFactory, first: int, count: int, shard: int
) -> None:
    folder = tmp_path_factory.mktemp("added")
    layout = StoreLayout(shard_time=shard)
    times = np.datetime64(0, "s") + 3600 * (first + np.arange(count))
    kept = write_cds(folder / "kept.nc", {"t2m": field(count)}, times)
    added = write_cds(folder / "added.nc", {"t2m": field(2)}, times[[0, -1]] + np.array([-3600 * 7, 3600 * 31]))
    alone, more = scan(kept).timeline(layout=layout), scan(kept, added).timeline(layout=layout)
    assert alone.first_slot % shard == more.first_slot % shard == 0
    assert alone.length == first + count - alone.first_slot
    if count > 1:
        np.testing.assert_array_equal(alone.times, more.times[alone.first_slot - more.first_slot :][: alone.length])


def test_channels_come_in_the_order_of_the_recipe(tmp_path: Path) -> None:
    times = hours("2024-01-01T00", 2)
    single = write_cds(tmp_path / "single.nc", {"u10": field(2), "z": field(2)}, times)
    levels = write_cds(tmp_path / "levels.nc", {"t": field(2, 3), "z": field(2, 3)}, times, levels=(500, 1000, 850))
    files = scan(single, levels)
    names = [c.name for c in files.timeline().channels]
    assert names == ["t@1000", "t@850", "t@500", "u10", "z", "z@1000", "z@850", "z@500"]
    wanted = recipe({"variable": "z", "levels": [500, 850]}, "u10", {"variable": "t", "levels": [850]})
    assert [c.name for c in files.timeline(wanted).channels] == ["z@500", "z@850", "u10", "t@850"]


def test_the_recipe_must_fit_the_files(tmp_path: Path) -> None:
    times = hours("2024-01-01T00", 2)
    accumulated = {"units": "m", "step_type": "accum"}
    files = scan(
        write_cds(tmp_path / "t.nc", {"t": field(2, 2)}, times, levels=(850, 500)),
        write_cds(tmp_path / "tp.nc", {"tp": field(2)}, times, **accumulated),
        write_cds(tmp_path / "t2m.nc", {"t2m": field(2)}, times),
    )
    for wanted, sentence in {
        recipe("t", "u10"): "no file has u10; they have t, t2m, tp",
        recipe({"variable": "t", "levels": [700]}): "no file has t on 700 hPa; it is there on 850 hPa, 500 hPa",
        recipe({"variable": "t2m", "levels": [500]}): "no file has t2m on 500 hPa; it is there on a single level",
        recipe("tp"): r"tp is accumulated, .*\{variable: tp, accumulation: hourly\} .*`since_00utc`",
        recipe(): "tp is accumulated",
        recipe({"variable": "tp", "rate": True, "accumulation": None}): "tp is accumulated",
        recipe({"variable": "t2m", "rate": True}): "t2m has rate but no accumulation",
        recipe({"variable": "t2m", "accumulation": "hourly"}): r"t2m is instantaneous in t2m\.nc",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            files.timeline(wanted)


@pytest.mark.parametrize(
    ("units", "kind", "rate"),
    [("J m**-2", "hourly", "W m**-2"), ("m", "since_00utc", "m s**-1"), ("kg m**-2", "hourly", "kg m**-2 s**-1"),
     ("W m**-2", "mean_rate", "W m**-2")],
)  # fmt: skip
def test_units_of_rates(tmp_path: Path, units: str, kind: str, rate: str) -> None:
    path = write_cds(tmp_path / "x.nc", {"x": field(2)}, hours("2024-01-01T00", 2), units=units, step_type="accum")
    (stored,) = scan(path).timeline(recipe({"variable": "x", "accumulation": kind, "rate": True})).channels
    assert stored.units == rate
    (plain,) = scan(path).timeline(recipe({"variable": "x", "accumulation": kind})).channels
    assert plain.units == units


def test_monthly_means_of_daily_totals_are_not_hourly(tmp_path: Path) -> None:
    times = np.array(["2024-01-01T06", "2024-02-01T06"], "M8[s]")
    files = scan(write_cds(tmp_path / "moda.nc", {"tp": field(2)}, times, units="m", step_type="avgad"))
    for rate in (False, True):
        with pytest.raises(ValueError, match=r"tp is a mean of daily totals in moda\.nc, not hourly; .* since_00utc"):
            files.timeline(recipe({"variable": "tp", "accumulation": "hourly", "rate": rate}))
    (stored,) = files.timeline(recipe({"variable": "tp", "accumulation": "since_00utc", "rate": True})).channels
    assert stored.units == "m s**-1"
    (plain,) = files.timeline(recipe("tp")).channels
    assert plain.units == "m"


def test_files_that_contradict_each_other_are_both_named(tmp_path: Path) -> None:
    times = hours("2024-01-01T00", 2)
    kelvin = write_cds(tmp_path / "kelvin.nc", {"t2m": field(2)}, times)
    celsius = write_cds(tmp_path / "celsius.nc", {"t2m": field(2)}, times, units="degC")
    east = write_cds(tmp_path / "east.nc", {"t2m": field(2)}, times, longitude=LONGITUDE + 1)
    mean = write_cds(tmp_path / "mean.nc", {"t2m": field(2)}, times, step_type="avgua")
    with pytest.raises(ValueError, match=r"t2m has the units '.+' in .+\.nc but '.+' in .+\.nc; convert"):
        scan(kelvin, celsius).timeline()
    with pytest.raises(ValueError, match=r"t2m has the step type '.+' in .+\.nc but"):
        scan(kelvin, mean).timeline()
    with pytest.raises(ValueError, match=r"\.nc has 6 x 8 cells, latitude 50\.\.47\.5, longitude .*, but .*\.nc has"):
        scan(kelvin, east).timeline()


def test_grids_that_differ_by_noise_or_orientation_are_one(tmp_path: Path) -> None:
    times = hours("2024-01-01T00", 6)
    west = np.arange(-3, 1.0, 0.5)
    parts = {
        "a": (LATITUDE, west),
        "b": (LATITUDE[::-1], west % 360),
        "c": (LATITUDE.astype("f4"), (west + 3e-5).astype("f4")),
    }
    files = [
        write_cds(tmp_path / f"{name}.nc", {"t2m": field(2, seed=i)}, times[2 * i :][:2], latitude=lat, longitude=lon)
        for i, (name, (lat, lon)) in enumerate(parts.items())
    ]
    timeline = scan(*files).timeline()
    assert timeline.grid.longitude.first == -3
    assert timeline.coverage()[0].sum() == 6


@pytest.mark.parametrize("final_first", [True, False])
def test_final_data_replace_preliminary_ones_whatever_the_order(tmp_path: Path, final_first: bool) -> None:
    times = hours("2024-01-01T00", 24)
    preliminary = write_cds(tmp_path / "t.nc", {"t2m": field(24, seed=1)}, times, expver="0005")
    final = write_cds(tmp_path / "final.nc", {"t2m": field(12, seed=2)}, times[:12], expver="0001")
    files = scan(*([final, preliminary] if final_first else [preliminary, final]))
    timeline = files.timeline()
    valid, versions = timeline.coverage()
    assert valid.all()
    assert versions[:, 0].tolist() == [FINAL] * 12 + [ERA5T] * 12
    assert (timeline.replaced, timeline.duplicates) == (12, 0)
    assert list(offered(timeline, "t2m").values()) == [["final.nc"]] * 12 + [["t.nc"]] * 12


def test_versions_inside_one_file_and_on_an_expver_dimension(tmp_path: Path) -> None:
    times = hours("2024-01-01T00", 4)
    mixed = write_cds(tmp_path / "mixed.nc", {"a": field(4)}, times, expver=["0001", "0001", "0005", "0005"])
    layers = np.stack([field(4), field(4, seed=1)], axis=1)
    layers[2:, 0] = layers[:1, 1] = np.nan  # step 1 is in both
    dimension = write_classic(tmp_path / "dimension.nc", {"b": layers}, times, expver=(1, 5))
    timeline = scan(mixed, dimension).timeline()
    assert timeline.coverage()[1].T.tolist() == [[1, 1, 5, 5], [1, 1, 5, 5]]
    assert timeline.replaced == 1
    assert timeline.rows["layer"].tolist() == [-1, -1, -1, -1, 0, 0, 1, 1]


def test_equal_content_counts_once_and_overlaps_are_counted(tmp_path: Path) -> None:
    times = hours("2024-01-01T00", 8)
    values = field(8)
    first = write_cds(tmp_path / "first.nc", {"t2m": values[:6]}, times[:6])
    second = write_cds(tmp_path / "second.nc", {"t2m": values[4:]}, times[4:])
    copy = Path(shutil.copy(first, tmp_path / "copy.nc"))
    timeline = scan(first, second, copy).timeline()
    assert len(timeline.sources) == 2
    assert timeline.duplicates == 2
    names = offered(timeline, "t2m")
    assert [len(names[time]) for time in sorted(names)] == [1, 1, 1, 1, 2, 2, 1, 1]


def test_gaps_and_variables_that_cover_different_times(tmp_path: Path) -> None:
    times = hours("2024-01-01T02", 10)
    wind = write_cds(tmp_path / "wind.nc", {"u10": field(10)}, times)
    warm = write_cds(tmp_path / "warm.nc", {"t2m": field(5)}, times[[0, 1, 2, 8, 9]])
    far = write_cds(tmp_path / "far.nc", {"t2m": field(1), "u10": field(1)}, hours("2024-01-01T14", 1))
    timeline = scan(wind, warm, far).timeline()
    gaps = [(g.first, g.last, g.steps, g.channels) for g in timeline.gaps()]
    zero = int(np.datetime64("2024-01-01", "s").astype(np.int64))
    assert gaps == [
        (zero + 5 * 3600, zero + 9 * 3600, 5, ("t2m",)),
        (zero + 12 * 3600, zero + 13 * 3600, 2, ("t2m", "u10")),
    ]


def test_what_is_left_out_is_named(tmp_path: Path, era5_data: Path) -> None:
    times = hours("2024-01-01T00", 2)
    good = write_cds(tmp_path / "good.nc", {"t2m": field(2)}, times)
    other = write_cds(tmp_path / "other.nc", {"u10": field(2)}, times + 1, longitude=LONGITUDE + 50)
    timeline = scan(good, other, era5_data / "edge" / "lfs_pointer.nc", members=tmp_path / "m").timeline(recipe("t2m"))
    assert timeline.skipped[0].startswith("lfs_pointer.nc is a Git LFS pointer")
    assert timeline.skipped[1] == "other.nc holds none of the recipe's variables"
    assert [s.name for s in timeline.sources] == ["good.nc"]
    with pytest.raises(ValueError, match=r"no usable NetCDF file: lfs_pointer\.nc is a Git LFS pointer"):
        scan(era5_data / "edge" / "lfs_pointer.nc", members=tmp_path / "m").timeline()


def test_the_order_of_files_does_not_matter(tmp_path: Path) -> None:
    times = hours("2024-01-01T00", 12)
    files = [write_cds(tmp_path / f"{i}.nc", {"t2m": field(6, seed=i)}, times[i : i + 6]) for i in range(4)]
    one, other = scan(*files).timeline(), scan(*reversed(files)).timeline()
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_array_equal(one.offsets, other.offsets)
    assert [s.member for s in one.sources] == [s.member for s in other.sources]


@pytest.mark.long
def test_hundreds_of_one_step_files(tmp_path: Path) -> None:
    times = hours("2024-01-01T00", 100)
    files = [
        write_cds(tmp_path / f"{name}_{i}.nc", {name: field(1, seed=i)}, times[i : i + 1])
        for i in range(100)
        for name in ("u10", "v10")
    ]
    scanned = scan(*files)
    assert max(len(s.model_dump_json()) for s in scanned.scans) < 1500
    timeline = scanned.timeline()
    assert timeline.length == 100 + timeline.times.tolist().index(int(times[0].astype(np.int64)))
    assert timeline.coverage()[0].sum() == 200


def test_a_century_of_hours_stays_small(tmp_path: Path) -> None:
    names = tuple("abcdefghijklmnopq")
    path = write_cds(tmp_path / "a.nc", dict.fromkeys(names, field(1)), hours("2024-01-01T00", 1))
    (scan_of_one,) = scan(path).scans
    member = scan_of_one.members[0].model_copy(update={"times": ((0, 3600, 100_000),), "versions": ((1, 100_000),)})
    long = scan_of_one.model_copy(update={"members": (member,)})
    timeline = build_timeline([long], {long.sha256: "a.nc"}, recipe(), StoreLayout())
    assert timeline.coverage()[0].shape == (100_000, 17)
    assert timeline.rows.nbytes + timeline.offsets.nbytes < 50e6
