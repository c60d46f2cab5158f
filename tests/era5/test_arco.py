"""Downloads from ARCO-ERA5, against a small local store of the same layout."""

from __future__ import annotations

import hashlib
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from configs.weather import ArcoSource
from configs.weather_pipeline import WeatherConfig
from flows.weather import weather
from storage.assets import AssetStore
from tasks.era5 import arco
from tasks.era5.arco import arco_partitions, fetch_arco
from tasks.era5.arco_names import ERA5_NAMES
from tasks.progress import Silent
from tasks.session import Session

pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")

UNITS = {"2m_temperature": "K", "total_precipitation": "m", "geopotential": "m**2 s**-2", "ice_age": "1"}


@pytest.fixture(scope="module")
def era5() -> xr.Dataset:
    """The content of a store whose time axis runs on after its data, as that of ARCO-ERA5 does."""
    coordinates: dict[str, Any] = {
        "time": pd.date_range("2024-01-29", "2024-02-04T23:00", freq="h"),
        "level": np.array([300, 500, 850]),
        "latitude": np.arange(90, -91, -15, dtype="f4"),
        "longitude": np.arange(0, 360, 15, dtype="f4"),
    }
    rng = np.random.default_rng(7)

    def variable(name: str, *dims: str) -> xr.Variable:
        values = rng.normal(size=[len(coordinates[dim]) for dim in dims]).astype("f4")
        return xr.Variable(dims, values, {"units": UNITS.get(name, "1"), "long_name": name.replace("_", " ")})

    surface, upper = ("time", "latitude", "longitude"), ("time", "level", "latitude", "longitude")
    data = xr.Dataset(
        {name: variable(name, *surface) for name in ("2m_temperature", "total_precipitation", "ice_age")}
        | {"geopotential": variable("geopotential", *upper)}
        | {"land_sea_mask": variable("land_sea_mask", "latitude", "longitude")},
        coordinates,
        {"valid_time_start": "2024-01-29", "valid_time_stop": "2024-01-31", "valid_time_stop_era5t": "2024-02-03"},
    )
    data["2m_temperature"][75, 3, 2] = np.nan
    return data


@pytest.fixture(scope="module")
def store(era5: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(era5, tmp_path_factory.mktemp("arco") / "store.zarr")


def write(data: xr.Dataset, path: Path, zarr_format: Literal[2, 3] = 3) -> Path:
    """Write a store with one time step per chunk."""
    chunks = {str(name): {"chunks": (1, *v.shape[1:])} for name, v in data.data_vars.items() if "time" in v.dims}
    data.to_zarr(path, zarr_format=zarr_format, encoding=chunks, consolidated=True)
    return path


def source(store: Path | str, **changes: Any) -> ArcoSource:
    settings: dict[str, Any] = {
        "start": date(2024, 1, 31),
        "end": date(2024, 2, 2),
        "variables": ("2m_temperature", "geopotential"),
        "levels": (500, 850),
        "area": (60, -30, 0, 45),
        "url": str(store),
    }
    return ArcoSource(**settings | changes)


def fetch_all(config: ArcoSource, folder: Path) -> list[Path]:
    targets = [folder / f"{partition.id}.nc" for partition in arco_partitions(config)]
    for partition, target in zip(arco_partitions(config), targets, strict=True):
        fetch_arco(partition, config, target)
    return targets


def expected(era5: xr.Dataset, start: str, end: str, longitudes: list[float]) -> xr.Dataset:
    """Select the area of `source` the plain way: every index by its label."""
    data = era5.sel(time=slice(start, end), latitude=slice(60, 0), level=[850, 500])
    return data.sel(longitude=[longitude % 360 for longitude in longitudes])


def test_files_are_months_of_an_area_and_days_of_the_globe(store: Path) -> None:
    assert [(p.id, p.start.day, p.end.day) for p in arco_partitions(source(store))] == [
        ("arco_2024-01", 31, 31),
        ("arco_2024-02", 1, 2),
    ]
    days = arco_partitions(source(store, area=None))
    assert [p.id for p in days] == ["arco_2024-01-31", "arco_2024-02-01", "arco_2024-02-02"]


def test_files_equal_the_store_in_the_layout_of_the_climate_data_store(
    store: Path, era5: xr.Dataset, tmp_path: Path
) -> None:
    january, february = fetch_all(source(store), tmp_path)
    longitudes = [-30.0, -15.0, 0.0, 15.0, 30.0, 45.0]
    for path, start, end in ((january, "2024-01-31", "2024-01-31"), (february, "2024-02-01", "2024-02-02")):
        reference = expected(era5, start, end, longitudes)
        with xr.open_dataset(path) as data:
            assert set(data.data_vars) == {"t2m", "z"}
            assert data["z"].dims == ("valid_time", "pressure_level", "latitude", "longitude")
            np.testing.assert_array_equal(data["valid_time"], reference["time"])
            np.testing.assert_array_equal(data["pressure_level"], [850, 500])
            np.testing.assert_array_equal(data["latitude"], [60, 45, 30, 15, 0])
            np.testing.assert_array_equal(data["longitude"], longitudes)
            np.testing.assert_array_equal(data["t2m"], reference["2m_temperature"])
            np.testing.assert_array_equal(data["z"], reference["geopotential"])
            assert data["z"].dtype == np.float32
            assert (data["t2m"].attrs["units"], data["t2m"].attrs["GRIB_stepType"]) == ("K", "instant")
            assert data["pressure_level"].attrs["units"] == "hPa"


def test_final_and_preliminary_hours_are_marked(store: Path, tmp_path: Path) -> None:
    config = source(store, variables=("total_precipitation",))
    january, february = fetch_all(config, tmp_path)
    with xr.open_dataset(january) as final, xr.open_dataset(february) as preliminary:
        assert final["tp"].attrs["GRIB_stepType"] == "accum"
        assert final["expver"].dims == ("valid_time",)
        assert set(final["expver"].values) == {"0001"}
        assert set(preliminary["expver"].values) == {"0005"}
        assert "pressure_level" not in final.dims


def test_both_marks_in_one_file(era5: xr.Dataset, tmp_path: Path) -> None:
    store = write(era5[["ice_age"]].assign_attrs(valid_time_stop="2024-02-01"), tmp_path / "store.zarr")
    (target,) = fetch_all(source(store, start=date(2024, 2, 1), variables=("ice_age",), levels=()), tmp_path)
    with xr.open_dataset(target) as data:
        assert data["expver"].values.tolist() == ["0001"] * 24 + ["0005"] * 24


@pytest.mark.parametrize(
    ("area", "longitudes"),
    [
        ((60, 330, 0, 45), [-30, -15, 0, 15, 30, 45]),
        ((60, 330, 0, 360), [-30, -15, 0]),
        ((60, 170, 0, -170), [180]),
        ((60, 15, 0, 40), [15, 30]),
        ((60, -180, 0, 180), list(range(-180, 180, 15))),
        ((60, 0, 0, 360), list(range(0, 360, 15))),
        ((60, 30, 0, 30), [30]),
    ],
)
def test_areas_run_east_from_their_western_edge(
    store: Path, era5: xr.Dataset, tmp_path: Path, area: tuple[float, ...], longitudes: list[float]
) -> None:
    (target,) = fetch_all(source(store, area=area, start=date(2024, 2, 1)), tmp_path)
    reference = expected(era5, "2024-02-01", "2024-02-02", longitudes)
    with xr.open_dataset(target) as data:
        np.testing.assert_array_equal(data["longitude"], longitudes)
        np.testing.assert_array_equal(data["t2m"], reference["2m_temperature"])
        np.testing.assert_array_equal(data["z"], reference["geopotential"])


def test_the_globe_with_all_levels(store: Path, era5: xr.Dataset, tmp_path: Path) -> None:
    config = source(store, area=None, levels=(), variables=("geopotential",), end=date(2024, 1, 31))
    (target,) = fetch_all(config, tmp_path)
    reference = era5.sel(time="2024-01-31").sortby("level", ascending=False)
    with xr.open_dataset(target) as data:
        np.testing.assert_array_equal(data["pressure_level"], [850, 500, 300])
        np.testing.assert_array_equal(data["longitude"], np.arange(0, 360, 15))
        np.testing.assert_array_equal(data["z"], reference["geopotential"])


def test_the_size_of_slabs_does_not_change_the_data(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = source(store, start=date(2024, 2, 1))
    (whole,) = fetch_all(config, tmp_path / "whole")
    monkeypatch.setattr(arco, "READ_BYTES", 1)
    monkeypatch.setattr(arco, "CHUNK_BYTES", 5 * 5 * 6 * 4)
    (pieces,) = fetch_all(config, tmp_path / "pieces")
    with xr.open_dataset(whole) as one, xr.open_dataset(pieces) as other:
        assert other["z"].encoding["chunksizes"] == (5, 1, 5, 6)
        xr.testing.assert_identical(one.load(), other.load())


def test_the_same_request_gives_the_same_bytes(store: Path, tmp_path: Path) -> None:
    digests = set()
    for run in ("first", "second"):
        targets = fetch_all(source(store), tmp_path / run)
        digests.add(tuple(hashlib.sha256(target.read_bytes()).hexdigest() for target in targets))
        time.sleep(1.1)  # HDF5 stamps objects with whole seconds where it is left to
    assert len(digests) == 1


def test_the_order_of_latitudes_and_the_zarr_format_do_not_matter(era5: xr.Dataset, tmp_path: Path) -> None:
    data = era5[["2m_temperature", "geopotential"]].sel(time=slice("2024-01-31", "2024-02-02"))
    usual = write(data, tmp_path / "usual.zarr")
    other = write(data.sortby("latitude").sortby("level"), tmp_path / "other.zarr", zarr_format=2)
    one, two = (fetch_all(source(store), store.with_suffix(".files")) for store in (usual, other))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"variables": ("2m_temprature",)}, "no '2m_temprature': did you mean 2m_temperature"),
        ({"variables": ("tp",)}, "no 'tp': did you mean total_precipitation"),
        ({"variables": ("xyz",)}, "no 'xyz': it has 2m_temperature, geopotential, "),
        ({"variables": ("land_sea_mask",)}, "'land_sea_mask' has the dimensions latitude, longitude instead of"),
        ({"levels": (500, 700)}, "no level 700; it has 300, 500, 850 hPa"),
        ({"end": date(2024, 2, 4)}, r"holds 2024-01-29 to 2024-02-03 \(final ERA5 until 2024-01-31\)"),
        ({"start": date(2023, 12, 31)}, "holds 2024-01-29 to 2024-02-03"),
        ({"area": (44, 1, 31, 14)}, "holds no grid point"),
        ({"url": "/nowhere/at/all.zarr"}, "does not open as a Zarr store"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else None,
)
def test_an_impossible_request_is_one_sentence(
    store: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    config = source(store, **changes)
    with pytest.raises(ValueError, match=sentence) as caught:
        fetch_arco(arco_partitions(config)[0], config, tmp_path / "file.nc")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_days_that_a_copy_lacks_are_named(era5: xr.Dataset, tmp_path: Path) -> None:
    config = source(write(era5.isel(time=slice(0, 48)), tmp_path / "copy.zarr"))
    with pytest.raises(ValueError, match="from 2024-01-29T00 to 2024-01-30T23 and lacks 2024-01-31"):
        fetch_arco(arco_partitions(config)[0], config, tmp_path / "file.nc")


def test_a_store_without_its_attributes_is_refused(era5: xr.Dataset, tmp_path: Path) -> None:
    attributes = {name: value for name, value in era5.attrs.items() if name != "valid_time_stop"}
    config = source(write(era5.isel(time=slice(0, 1)).drop_attrs().assign_attrs(attributes), tmp_path / "copy.zarr"))
    with pytest.raises(ValueError, match="lacks the attribute valid_time_stop,"):
        fetch_arco(arco_partitions(config)[0], config, tmp_path / "file.nc")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    config = source("gs://gcp-public-data-arco-era5/ar/full_37-1h-0p25deg-chunk-1.zarr-v3")
    with pytest.raises(ValueError, match=r"package that is not installed.*gcsfs"):
        fetch_arco(arco_partitions(config)[0], config, tmp_path / "file.nc")


def test_unknown_variables_keep_their_name(store: Path, tmp_path: Path) -> None:
    (target,) = fetch_all(source(store, variables=("ice_age",), start=date(2024, 2, 1)), tmp_path)
    with xr.open_dataset(target) as data:
        assert "GRIB_stepType" not in data["ice_age"].attrs


def test_short_names_are_unique() -> None:
    shorts = [name.short for name in ERA5_NAMES.values()]
    assert len(shorts) == len(set(shorts))


def test_an_arco_source_runs_through_the_pipeline(store: Path, era5: xr.Dataset, tmp_path: Path) -> None:
    """From the Zarr by way of NetCDF files to a window store, whose windows are a box of the source."""
    config = WeatherConfig.model_validate({
        "source": source(store, variables=("2m_temperature",), levels=()).model_dump(mode="json"),
        "windows": {"time": 4, "height": 4, "width": 4, "stride_height": 2, "stride_width": 2},
        "splits": {"validation_share": 0, "test_share": 0},
    })  # fmt: skip
    assets = AssetStore(tmp_path / "assets")
    with Session(assets, Silent()).active():
        weather(config)
    windows = xr.open_zarr(assets.assets("era5_windows")[0].folder)
    box = era5["2m_temperature"].sel(time=slice("2024-01-31", "2024-02-02"), latitude=slice(60, 0))
    expected = box.sel(longitude=[330, 345, 0, 15, 30, 45]).values
    np.testing.assert_array_equal(windows.data.sel(time=slice("2024-01-31", None)).values[:, 0], expected)
    assert set(np.unique(windows.expver.sel(time="2024-02-01"))) == {5}
