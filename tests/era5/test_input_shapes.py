"""ERA5 files as people really have them: read with the value that xarray or NumPy reads, or refused with a sentence."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr

from configs.weather import Recipe
from storage.assets import Asset, AssetStore
from storage.raw import find_files
from tasks.era5.catalog import FileScan, scan_file
from tasks.era5.cf_units import same_unit
from tasks.era5.inputs import asked_for, may_be_netcdf, what_it_is
from tasks.era5.scan import era5_catalog
from tasks.progress import Silent
from tasks.session import Session
from tasks.stage import raw_input
from tests.era5.raw_files import LATITUDE, LONGITUDE, field, hours, ingest, recipe, scan, sha256, write_cds

TIMES = hours("2024-03-01T00", 3)


def shape(name: str, outcome: str = "read") -> pytest.MarkDecorator:
    return pytest.mark.input_shape(format="NetCDF", shape=name, outcome=outcome)


def plain(path: Path, **settings: Any) -> Path:
    return write_cds(path, {"t2m": field(3)}, TIMES, **settings)


def edited(path: Path, change: Callable[[xr.Dataset], xr.Dataset], **settings: Any) -> Path:
    """Write a plain file and let xarray change it; attributes are written as they are."""
    source = plain(path.with_suffix(".source"), **settings)
    with xr.open_dataset(source, decode_cf=False) as data:
        change(data.load()).to_netcdf(path)
    source.unlink()
    return path


def packed(name: str, stored: np.ndarray, **attributes: Any) -> Callable[[xr.Dataset], xr.Dataset]:
    """Replace a coordinate by stored values and the attributes that decode them."""

    def change(data: xr.Dataset) -> xr.Dataset:
        kept = {k: v for k, v in data[name].attrs.items() if k != "_FillValue"}
        return data.assign_coords({name: (name, stored, kept | attributes)})

    return change


def scanned(path: Path) -> FileScan:
    return scan_file(path, sha256(path), path.parent / "members")


def problem(path: Path) -> str:
    scan = scanned(path)
    return "; ".join([scan.problem or "", *scan.skipped])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            packed("latitude", np.arange(6, dtype="i2"), scale_factor=-0.5, add_offset=50.0),
            marks=shape("latitude with scale_factor and add_offset"),
        ),
        pytest.param(
            packed("longitude", np.arange(50, 90, 5, dtype="i2"), scale_factor=0.1),
            marks=shape("longitude with scale_factor"),
        ),
        pytest.param(
            packed("valid_time", np.arange(3, dtype="i2"), scale_factor=3600, add_offset=1709251200),
            marks=shape("time with scale_factor and add_offset"),
        ),
    ],
)
def test_coordinates_are_decoded_like_data(tmp_path: Path, change: Callable[[xr.Dataset], xr.Dataset]) -> None:
    path = edited(tmp_path / "a.nc", change)
    (member,) = scanned(path).members
    with xr.open_dataset(path) as reference:
        np.testing.assert_allclose(member.grid.latitude.coordinates(), reference.latitude, atol=1e-4)
        np.testing.assert_allclose(member.grid.longitude.coordinates(), reference.longitude, atol=1e-4)
        np.testing.assert_array_equal(member.seconds().astype("M8[s]"), reference.valid_time.values.astype("M8[s]"))
    np.testing.assert_allclose(member.grid.latitude.coordinates(), LATITUDE)
    np.testing.assert_allclose(member.grid.longitude.coordinates(), LONGITUDE)
    np.testing.assert_array_equal(member.seconds().astype("M8[s]"), TIMES)


@shape("levels with scale_factor")
def test_levels_are_decoded_like_data(tmp_path: Path) -> None:
    path = write_cds(tmp_path / "a.nc", {"t": field(3, 2)}, TIMES, levels=(850, 500))
    with xr.open_dataset(path) as data:
        stored = data.assign_coords(
            pressure_level=("pressure_level", np.array([17, 10], "i2"), {"units": "hPa", "scale_factor": 50.0})
        )
        stored.to_netcdf(tmp_path / "packed.nc")
    assert scanned(tmp_path / "packed.nc").members[0].variables[0].levels == (850, 500)


def with_units(name: str, units: str) -> Callable[[xr.Dataset], xr.Dataset]:
    return lambda data: data.assign_coords({name: data[name].assign_attrs(units=units)})


def on_one_dimension(data: xr.Dataset) -> xr.Dataset:
    return data.stack(values=("latitude", "longitude")).reset_index("values")


def level(values: list[float], **attributes: str) -> Callable[[xr.Dataset], xr.Dataset]:
    def change(data: xr.Dataset) -> xr.Dataset:
        several = xr.concat([data.t2m] * len(values), "level").transpose("valid_time", "level", ...)
        return data.assign(t2m=several).assign_coords(level=("level", values, attributes))

    return change


def float32_hours(data: xr.Dataset) -> xr.Dataset:
    days = (TIMES - np.datetime64("1900-01-01")).astype(float) / 86_400
    return data.assign_coords(valid_time=("valid_time", days.astype("f4"), {"units": "days since 1900-01-01"}))


def forecast_start(data: xr.Dataset) -> xr.Dataset:
    attributes = data.valid_time.attrs | {"standard_name": "forecast_reference_time"}
    return data.rename(valid_time="time").assign_coords(time=("time", data.valid_time.values, attributes))


def attribute(name: str, value: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with netCDF4.Dataset(path, "a") as file:
            file["t2m"].setncattr(name, value)

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param(
            with_units("latitude", "radians"),
            "has a latitude in 'radians'; convert it to degrees north",
            marks=shape("latitude in radians", "refused"),
        ),
        pytest.param(
            with_units("longitude", "m"), "has a longitude in 'm'", marks=shape("longitude in metres", "refused")
        ),
        pytest.param(
            packed("valid_time", np.array([0, -1, 2]), _FillValue=-1, units="hours since 2024-03-01"),
            "has missing values in its time coordinate",
            marks=shape("a time that is its _FillValue", "refused"),
        ),
        pytest.param(
            on_one_dimension,
            "along the same dimension values (a reduced Gaussian grid",
            marks=shape("a reduced Gaussian grid", "refused"),
        ),
        pytest.param(
            level([1, 2, 3], long_name="model level number"),
            "lies on levels that are not pressures in hPa, but 'model level number'",
            marks=shape("model levels without units", "refused"),
        ),
        pytest.param(
            level([100, 137]),
            "lies on levels that are not pressures",
            marks=shape("levels that nothing explains", "refused"),
        ),
        pytest.param(
            level([85000, 50000], units="hPa"), "which no air has", marks=shape("levels in Pa called hPa", "refused")
        ),
        pytest.param(
            level([850, 850], units="hPa"), "holds a pressure level twice", marks=shape("a level twice", "refused")
        ),
        pytest.param(
            float32_hours, "holds its valid_time as float32 days, which rounds", marks=shape("float32 days", "refused")
        ),
        pytest.param(
            forecast_start,
            "tells when its forecasts start, but not for when they hold",
            marks=shape("a forecast without step", "refused"),
        ),
    ],
)
def test_coordinates_that_mean_something_else_are_refused(
    tmp_path: Path, change: Callable[[xr.Dataset], xr.Dataset], sentence: str
) -> None:
    assert sentence in problem(edited(tmp_path / "a.nc", change))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("missing_value", "none", marks=shape("missing_value that is text", "refused")),
        pytest.param("scale_factor", "0.1", marks=shape("scale_factor that is text", "refused")),
        pytest.param("scale_factor", np.array([1.0, 2.0]), marks=shape("scale_factor with two elements", "refused")),
        pytest.param("add_offset", np.nan, marks=shape("add_offset that is NaN", "refused")),
    ],
)
def test_packing_that_is_no_number_is_refused_by_name(tmp_path: Path, name: str, value: Any) -> None:
    path = plain(tmp_path / "a.nc")
    attribute(name, value)(path)
    assert f"variable t2m has the {name} " in problem(path)


@pytest.mark.parametrize(
    ("dtype", "fill", "attributes"),
    [
        pytest.param("f4", netCDF4.default_fillvals["f4"], {}, marks=shape("the fill value of NetCDF, unmarked")),
        pytest.param("f8", netCDF4.default_fillvals["f8"], {}, marks=shape("the fill value of NetCDF, float64")),
        pytest.param("i2", -32767, {"scale_factor": 0.01, "add_offset": 280.0}, marks=shape("int16 fill, unmarked")),
        pytest.param("i4", -2147483647, {"scale_factor": 1e-7, "add_offset": 280.0}),
        pytest.param("f4", 1e20, {"missing_value": 1e20}, marks=shape("missing_value of another type than the data")),
        pytest.param("f4", -9999.9, {"missing_value": [-1.0, -9999.9]}, marks=shape("missing_value with two elements")),
    ],
)
def test_fill_values_are_missing_marked_or_not(tmp_path: Path, dtype: str, fill: float, attributes: Any) -> None:
    path = tmp_path / "a.nc"
    with netCDF4.Dataset(plain(path), "a") as file:
        made = file.createVariable("x", dtype, ("valid_time", "latitude", "longitude"))
        made.set_auto_maskandscale(False)
        made[:] = 100
        made[1, 2, 3] = fill
        made.setncatts(attributes)
    got = ingest(tmp_path, path, recipe=recipe("x")).data.data.values[:3, 0]
    assert np.isnan(got[1, 2, 3])
    assert np.isnan(got).sum() == 1
    expected = 100 * attributes.get("scale_factor", 1) + attributes.get("add_offset", 0)
    np.testing.assert_allclose(got[0], expected, rtol=1e-6)


@shape("a forecast with a scalar step and no valid_time")
@pytest.mark.parametrize(("step", "units"), [(6, "hours"), (21_600_000_000_000, "nanoseconds"), (0.25, "days")])
def test_a_forecast_is_stored_when_it_holds(tmp_path: Path, step: float, units: str) -> None:
    path = edited(
        tmp_path / "a.nc",
        lambda data: data.rename(valid_time="time").assign_coords(step=((), step, {"units": units})),
    )
    assert scanned(path).members[0].seconds().astype("M8[s]").tolist() == (TIMES + 6 * 3600).tolist()


@shape("a forecast with many steps, one start and no valid_time")
def test_a_forecast_of_many_steps(tmp_path: Path) -> None:
    def change(data: xr.Dataset) -> xr.Dataset:
        start = data.valid_time[0].drop_vars("valid_time")
        data = data.rename(valid_time="step").assign_coords(step=("step", [1, 2, 3], {"units": "hours"}))
        return data.assign_coords(time=((), start.values, start.attrs))

    path = edited(tmp_path / "a.nc", change)
    assert scanned(path).members[0].seconds().astype("M8[s]").tolist() == (TIMES + 3600).tolist()
    store = ingest(tmp_path, path)
    np.testing.assert_array_equal(store.data.data.sel(time=TIMES + 3600).values[:, 0], field(3))


@pytest.mark.parametrize(
    ("dropped", "grid"),
    [
        pytest.param(("latitude",), (1, 8), marks=shape("a scalar latitude")),
        pytest.param(("longitude",), (6, 1), marks=shape("a scalar longitude")),
        pytest.param(("latitude", "longitude"), (1, 1), marks=shape("a point")),
    ],
)
def test_a_scalar_place_has_length_one(tmp_path: Path, dropped: tuple[str, ...], grid: tuple[int, int]) -> None:
    path = edited(tmp_path / "a.nc", lambda data: data.isel(dict.fromkeys(dropped, 2)))
    got = ingest(tmp_path, path).data.data.values[:3, 0]
    np.testing.assert_array_equal(got, field(3)[:, 2:3, 2:3] if grid == (1, 1) else _cut(grid))


def _cut(grid: tuple[int, int]) -> np.ndarray:
    return field(3)[:, 2:3] if grid[0] == 1 else field(3)[:, :, 2:3]


@shape("lat_bnds with units")
def test_bounds_are_no_coordinates(tmp_path: Path) -> None:
    def change(data: xr.Dataset) -> xr.Dataset:
        edges = np.stack([LATITUDE + 0.25, LATITUDE - 0.25], axis=1)
        data["latitude"].attrs["bounds"] = "lat_edges"
        return data.assign(lat_edges=(("latitude", "nv"), edges, {"units": "degrees_north"}))

    path = edited(tmp_path / "a.nc", change)
    assert problem(path) == ""
    assert [v.name for v in scanned(path).members[0].variables] == ["t2m"]


def second_grid(path: Path) -> Path:
    def change(data: xr.Dataset) -> xr.Dataset:
        return data.assign(swh=(("valid_time", "lat2", "lon2"), np.zeros((3, 2, 2), "f4"))).assign_coords(
            lat2=("lat2", [50.0, 49.0], {"units": "degrees_north"}),
            lon2=("lon2", [5.0, 6.0], {"units": "degrees_east"}),
        )

    return edited(path, change)


def with_group(path: Path, name: str = "waves") -> Path:
    with netCDF4.Dataset(plain(path), "a") as file:
        file.createGroup(name).createVariable("swh", "f4", ())
    return path


@shape("a second grid in one file of a folder", "skipped")
def test_a_second_grid_is_named(tmp_path: Path) -> None:
    told = problem(second_grid(tmp_path / "a.nc"))
    assert "variable swh lies along valid_time x lat2 x lon2, not on the file's grid" in told
    assert "`ncks -v swh in.nc out.nc`" in told


@shape("variables in groups of a file in a folder", "skipped")
@pytest.mark.parametrize("name", ["waves", "/forecast/waves"])
def test_groups_are_named(tmp_path: Path, name: str) -> None:
    told = problem(with_group(tmp_path / "a.nc", name))
    assert f"group {name.strip('/')} (swh) is not read; write it to a file of its own with `ncks -G : -g " in told
    assert [v.name for v in scanned(tmp_path / "a.nc").members[0].variables] == ["t2m"]


@pytest.mark.parametrize(
    "left",
    [
        pytest.param([], marks=shape("variables in groups alone", "refused")),
        pytest.param(["valid_time"], marks=shape("times in the root, variables in a group", "refused")),
        pytest.param(["valid_time", "latitude", "longitude"], marks=shape("coordinates alone in the root", "refused")),
    ],
)
def test_groups_without_data_beside_them_are_named(tmp_path: Path, left: list[str]) -> None:
    path = tmp_path / "a.nc"
    with xr.open_dataset(plain(tmp_path / "b.nc"), decode_cf=False) as data:
        data[left].drop_vars(set(data.coords) - set(left), errors="ignore").to_netcdf(path)
        data.to_netcdf(path, group="waves", mode="a")
    assert "group waves (" in problem(path)
    assert "xarray.open_dataset('in.nc', group='waves').to_netcdf('out.nc')" in problem(path)


def catalog(store: AssetStore, path: Path, wanted: Recipe | None = None, bad: str = "error") -> Asset:
    with Session(store, Silent()).active():
        raw = raw_input("era5_files", find_files([str(path)], may_be_netcdf, what_it_is))
        return era5_catalog(raw=raw, on_bad_file=bad, **asked_for(raw, wanted or Recipe()))


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        pytest.param(with_group, r"group waves \(swh\)", marks=shape("groups in a file that is named", "refused")),
        pytest.param(second_grid, "variable swh lies", marks=shape("a second grid in a file that is named", "refused")),
    ],
)
def test_of_a_file_that_is_named_everything_is_meant(
    store: AssetStore, tmp_path: Path, write: Callable[[Path], Path], sentence: str
) -> None:
    path = write(tmp_path / "raw" / "a.nc") if (tmp_path / "raw").mkdir() is None else tmp_path
    asset = catalog(store, path.parent)
    assert asset.manifest.counts["parts_left_out"] == 1
    assert "swh" in asset.manifest.counts["left_out"]
    with pytest.raises(ValueError, match=rf"1 of 1 raw files cannot be used: .*a\.nc holds more .*{sentence}"):
        catalog(store, path)
    with pytest.raises(ValueError, match=r"list in recipe\.variables what is wanted of the rest \(t2m\)"):
        catalog(store, path, recipe("swh"))
    assert catalog(store, path, recipe("t2m")).manifest.counts["variables"] == 1
    assert catalog(store, path, bad="skip").manifest.counts["variables"] == 1


HDF5 = (
    "eNrr9HBx4+WS4mIAAQ4OBhYGAQZk8B8KNDhQ+TD5BCjNCKU7oPQKJpg4I1hOAiouCDUfXV1IkKsrSPV/NACzx4AFQqO6bhSMFODh"
    "6hgAoiOgfAUofYIJVV0ilM5JLMksKU1JZUBLnxYk2svIwArRywjja0BoJogAzHpmKI3OZwamfJBKQQV5Bhaoy8U5GMTrofKsDBxg"
    "eSYmiIEc0JzCzMgAzXESaC6qGNB4CPbzd2EE+pIDFg/M+NXD8msF62gaxp+uIPHMyIiarpgw0pE9NOwdGEy4GUz+MxNKRxIc2EvO"
    "jtFIGAVEgg/2AFpHNWw="
)
"""What h5py writes for two arrays, `a` and `latitude`, without dimension scales; compressed, in base64."""


@shape("HDF5 without the structure of NetCDF", "refused")
def test_hdf5_that_is_no_netcdf_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(zlib.decompress(base64.b64decode(HDF5)))
    assert may_be_netcdf(tmp_path / "a.h5")
    assert "is HDF5 without the structure of NetCDF" in problem(tmp_path / "a.h5")


@shape("a filter that is not installed", "refused")
def test_a_filter_that_is_not_installed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    with netCDF4.Dataset(plain(path), "a") as file:
        file.createVariable("x", "f4", ("valid_time", "latitude", "longitude"), compression="zstd")[:] = 1
    code = f"from tests.era5.test_input_shapes import *; print(problem(Path({str(path)!r})))"
    environment = os.environ | {"HDF5_PLUGIN_PATH": "/nowhere"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert (
        "variable x is compressed with Zstandard (HDF5 filter 32015), which is not installed; `pip install hdf5plugin`"
        in (told.stdout)
    )
    assert problem(path) == ""


def pair(tmp_path: Path, one: dict[str, Any], other: dict[str, Any]) -> list[Path]:
    """Write a variable of two periods to two files, with these attributes in either."""
    paths = []
    for name, attributes, start in (("one", one, 0), ("other", other, 3)):
        paths.append(write_cds(tmp_path / f"{name}.nc", {"x": field(3)}, TIMES + 3600 * start, units="m s**-1"))
        with netCDF4.Dataset(paths[-1], "a") as file:
            for key, value in attributes.items():
                file["x"].setncattr(key, value) if value else file["x"].delncattr(key)
    return paths


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        pytest.param(
            {"cell_methods": "time: mean (interval: 24 hours)"},
            "the cell methods",
            marks=shape("a mean beside hourly values", "refused"),
        ),
        pytest.param({"units": ""}, "the units", marks=shape("units in one file and none in another", "refused")),
        pytest.param({"units": "km h-1"}, "the units", marks=shape("units that differ", "refused")),
        ({"cell_methods": "area: mean time: point"}, ""),
        pytest.param({"units": "m s-1"}, "", marks=shape("one unit in two spellings")),
    ],
)
def test_files_of_one_channel_say_the_same_of_it(tmp_path: Path, attributes: dict[str, Any], sentence: str) -> None:
    paths = pair(tmp_path, {}, attributes)
    if sentence:
        with pytest.raises(ValueError, match=rf"x has {sentence}.* in (one|other)\.nc but .* in (one|other)\.nc"):
            scan(*paths).timeline()
    else:
        assert scan(*paths).timeline().coverage()[0].sum() == 6


@pytest.mark.parametrize(
    ("first", "second"),
    [("m s-1", "m/s"), ("kelvin", "K"), ("kg m-2 s-1", "kg m**-2 s**-1"), ("Celsius", "degC"), ("N m-2", "Pa")],
)
def test_spellings_of_one_unit(first: str, second: str) -> None:
    assert same_unit(first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("mm", "m"),
        ("degC", "K"),
        ("%", "1"),
        ("J m-2", "W m-2"),
        ("", "1"),
        ("m s-1", "m s"),
        ("rad", "1"),
        ("(0 - 1)", "1"),
    ],
)
def test_units_that_differ(first: str, second: str) -> None:
    assert not same_unit(first, second)


def scalar_level(path: Path, value: float, name: str, seed: int, **attributes: str) -> Path:
    def change(data: xr.Dataset) -> xr.Dataset:
        return (
            data.rename(t2m="t")
            .assign_coords({name: ((), value, attributes)})
            .assign(t=(data.t2m.dims, field(3, seed=seed)))
        )

    return edited(path, change)


@shape("levels in files of their own, each a scalar")
def test_scalar_levels_are_channels_of_their_own(tmp_path: Path) -> None:
    paths = [scalar_level(tmp_path / f"{p}.nc", p, "isobaricInhPa", p, units="hPa") for p in (850, 500)]
    store = ingest(tmp_path, *paths)
    assert store.data.channel.values.tolist() == ["t@850", "t@500"]
    np.testing.assert_array_equal(store.data.data.sel(channel="t@500").values[:3], field(3, seed=500))


@shape("levels in files of their own, each a lev of length one")
def test_a_lev_of_length_one_is_a_level(tmp_path: Path) -> None:
    paths = []
    for pressure in (850, 500):
        source = scalar_level(tmp_path / f"{pressure}.one", pressure * 100, "lev", pressure, units="Pa")
        with xr.open_dataset(source, decode_cf=False) as data:
            one = data.load()
            paths.append(tmp_path / f"{pressure}.nc")
            one = one.drop_vars("lev")
            one = one.assign(t=one.t.expand_dims("lev", axis=1))
            one.assign_coords(lev=("lev", [pressure * 100.0], {"units": "Pa"})).to_netcdf(paths[-1])
    assert ingest(tmp_path, *paths).data.channel.values.tolist() == ["t@850", "t@500"]


@shape("one height in one file and another in the next", "refused")
def test_files_of_two_heights_or_members_are_not_one_channel(tmp_path: Path) -> None:
    paths = [scalar_level(tmp_path / f"{h}.nc", h, "height", h, units="m") for h in (2, 10)]
    with pytest.raises(ValueError, match=r"t has the height .* in (2|10)\.nc but .* in (2|10)\.nc"):
        scan(*paths).timeline()


@shape("a variable under its older and its newer name")
def test_a_renamed_variable_is_one_channel(tmp_path: Path) -> None:
    old = write_cds(tmp_path / "old.nc", {"mtpr": field(3, seed=1)}, TIMES, units="kg m**-2 s**-1")
    new = write_cds(tmp_path / "new.nc", {"avg_tprate": field(3, seed=2)}, TIMES + 3 * 3600, units="kg m**-2 s**-1")
    both = np.concatenate([field(3, seed=1), field(3, seed=2)])
    for folder, wanted, name in (("a", Recipe(), "avg_tprate"), ("b", recipe("mtpr"), "mtpr")):
        store = ingest(tmp_path / folder, old, new, recipe=wanted)
        assert store.data.channel.values.tolist() == [name]
        np.testing.assert_array_equal(store.data.data.values[:6, 0], both)
    assert [c.name for c in scan(old).timeline().channels] == ["mtpr"]


def folder_of_all_kinds(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    (folder / "store.zarr").mkdir(parents=True)
    (folder / "store.zarr" / "zarr.json").write_text("{}")
    (folder / "a.grib").write_bytes(b"GRIB0000")
    (folder / "gone.nc").symlink_to(tmp_path / "nowhere.nc")
    (folder / "notes.txt").write_text("notes")
    (tmp_path / "elsewhere").mkdir()
    plain(tmp_path / "elsewhere" / "b.nc")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "round").symlink_to(folder)
    plain(folder / "a.nc")
    return folder


@pytest.mark.input_shape(format="folder", shape="a broken link, a Zarr folder, a GRIB file", outcome="skipped")
def test_what_lies_beside_is_counted_and_named(tmp_path: Path) -> None:
    found = find_files([str(folder_of_all_kinds(tmp_path))], may_be_netcdf, what_it_is)
    assert [p.name for p in found] == ["a.nc", "b.nc"]
    reasons = {p.name: reason for p, reason in found.passed}
    assert "xarray.open_zarr(...).to_netcdf" in reasons["store.zarr"]
    assert "cdo -f nc4 copy" in reasons["a.grib"]
    assert reasons["gone.nc"] == "is a link to nothing"
    assert reasons["notes.txt"].startswith("is not NetCDF")
    assert found.told().startswith("4 found there and not used: ")
    assert found.told().endswith("; and 1 more")


@pytest.mark.parametrize(
    ("name", "sentence"), [("store.zarr", "is a Zarr folder; write it to a file"), ("gone.nc", "is a link to nothing")]
)
def test_what_cannot_be_read_is_an_error_where_it_is_named(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match="matches no file of the right kind") as error:
        find_files([str(folder_of_all_kinds(tmp_path) / name)], may_be_netcdf, what_it_is)
    assert sentence in str(error.value)


@pytest.mark.input_shape(format="folder", shape="a file or folder that is closed to the user", outcome="refused")
def test_what_is_closed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of_all_kinds(tmp_path)
    readable = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "b.nc" and readable(path, mode))
    with pytest.raises(ValueError, match=r"b\.nc cannot be read: it is closed to you; change its permissions"):
        find_files([str(folder)], may_be_netcdf)
    found = find_files([str(folder)], may_be_netcdf, unreadable="skip")
    assert [p.name for p in found] == ["a.nc"]
    assert "b.nc" in {p.name for p, _ in found.passed}

    def closed(path: Any) -> Any:
        if Path(path).name == "linked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", closed)
    found = find_files([str(folder)], may_be_netcdf)
    assert {p.name: why for p, why in found.passed}["linked"] == "cannot be entered (Permission denied)"


def with_values(path: Path, dtype: str, odd: Any, attributes: dict[str, Any], name: str = "x") -> Path:
    """Add a variable of 100 everywhere, as stored, but at one place."""
    with netCDF4.Dataset(plain(path), "a") as file:
        made = file.createVariable(name, dtype, ("valid_time", "latitude", "longitude"))
        made.set_auto_maskandscale(False)
        made[:] = 100
        made[1, 2, 3] = odd
        made.setncatts(attributes)
    return path


@pytest.mark.parametrize(
    ("dtype", "odd", "attributes"),
    [
        pytest.param("f4", 5000, {"valid_range": np.array([0, 400.0])}, marks=shape("values out of valid_range")),
        pytest.param("f4", -1, {"valid_min": np.float32(0)}, marks=shape("values below valid_min")),
        pytest.param("f8", 401, {"valid_max": 400}, marks=shape("values above valid_max")),
        ("f4", 400.5, {"valid_max": 400.1}),
        pytest.param(
            "i2", 30000, {"valid_range": np.array([0, 20000], "i2"), "scale_factor": 0.01}, marks=shape("packed bounds")
        ),
        ("i2", 30000, {"valid_range": np.array([0, 200.0], "f4"), "scale_factor": 0.01}),
        ("i1", -1, {"valid_max": np.uint8(250), "_Unsigned": "true"}),
        pytest.param("f4", -999, {"fill_value": np.float32(-999)}, marks=shape("_FillValue without its underscore")),
        ("f4", -999, {"missingValue": np.float64(-999)}),
    ],
)
def test_what_is_outside_of_the_valid_range_is_missing(tmp_path: Path, dtype: str, odd: Any, attributes: Any) -> None:
    path = with_values(tmp_path / "a.nc", dtype, odd, attributes)
    got = ingest(tmp_path, path, recipe=recipe("x")).data.data.values[:3, 0]
    assert np.argwhere(np.isnan(got)).tolist() == [[1, 2, 3]]
    np.testing.assert_allclose(got[0], 100 * attributes.get("scale_factor", 1), rtol=1e-6)


def test_what_is_within_the_valid_range_stays(tmp_path: Path) -> None:
    at_the_bound = np.float32(300.1)
    path = with_values(tmp_path / "a.nc", "f4", at_the_bound, {"valid_range": [100, 300.1]})
    assert ingest(tmp_path, path, recipe=recipe("x")).data.data.values[1, 0, 2, 3] == at_the_bound


@shape("bounds that are text", "refused")
@pytest.mark.parametrize(("name", "value"), [("valid_range", "0 400"), ("valid_min", "low"), ("valid_max", [1.0, 2.0])])
def test_bounds_that_are_no_numbers_are_refused_by_name(tmp_path: Path, name: str, value: Any) -> None:
    path = with_values(tmp_path / "a.nc", "f4", 100, {name: value})
    assert f"variable x has the {name} " in problem(path)
    with pytest.raises(
        ValueError, match=rf"no file has a usable x: a\.nc: variable x has the {name} .*; they have t2m"
    ):
        ingest(tmp_path, path, recipe=recipe("x"))


@pytest.mark.parametrize("code", [-9999, -999.9, 9999, -32768, 1e15])
@shape("codes for missing values that nothing marks", "refused")
def test_codes_far_from_all_values_are_refused(tmp_path: Path, code: float) -> None:
    path = with_values(tmp_path / "a.nc", "f4", code, {})
    with pytest.raises(
        ValueError, match=r"a\.nc: x has the value .* at 2024-03-01T01:00 UTC; if it stands for missing"
    ):
        ingest(tmp_path, path, recipe=recipe("x"))


def test_a_code_among_values_like_it_is_a_value(tmp_path: Path) -> None:
    path = with_values(tmp_path / "a.nc", "f4", -999, {})
    with netCDF4.Dataset(path, "a") as file:
        file["x"][1] = np.linspace(-999, 800, 48).reshape(6, 8)
    assert ingest(tmp_path, path, recipe=recipe("x")).data.data.values[1, 0, 0, 0] == -999


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=shape(f"a field of {k}", "skipped")) for k in ("texts", "lists", "names of an enumeration")],
)
def test_fields_that_are_no_numbers_are_named(tmp_path: Path, kind: str) -> None:
    path = plain(tmp_path / "a.nc")
    with netCDF4.Dataset(path, "a") as file:
        types = {
            "texts": lambda: "S1",
            "lists": lambda: file.createVLType(np.int32, "ragged"),
            "names of an enumeration": lambda: file.createEnumType(np.uint8, "cover", {"sea": 0, "land": 1}),
        }
        file.createVariable("c", types[kind](), ("valid_time", "latitude", "longitude"))
    assert scanned(path).skipped == ("variable c does not hold numbers",)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("time: mean", "time:mean", True),
        ("time: mean", "Time: Mean", True),
        ("time: mean", "valid_time: mean", True),
        ("area: mean", "time: instantaneous", True),
        ("time: mean", "time: mean within days time: mean over years", False),
        ("time: maximum within days time: mean over days", "time: mean within days time: mean over days", False),
        pytest.param("time: point", "mean", False, marks=shape("cell_methods without an axis", "refused")),
    ],
)
def test_cell_methods_are_compared_however_they_are_written(
    tmp_path: Path, first: str, second: str, same: bool
) -> None:
    paths = pair(tmp_path, {"cell_methods": first}, {"cell_methods": second})
    if same:
        assert scan(*paths).timeline().coverage()[0].sum() == 6
    else:
        with pytest.raises(ValueError, match="x has the cell methods"):
            scan(*paths).timeline()


@pytest.mark.parametrize(
    ("name", "values", "units", "sentence"),
    [
        pytest.param(
            "valid_time", [0, 1, 2], "hours as of 2024-01-01", "has a valid_time in 'hours as of 2024-01-01'",
            marks=shape("times in units that are none", "refused"),
        ),
        pytest.param(
            "date", [20240101.0, 20240101.5, 20240102.0], "day as %Y%m%d.%f", "dates that are not YYYYMMDD",
            marks=shape("dates with fractions of days", "refused"),
        ),
    ],
)  # fmt: skip
def test_times_in_other_units_are_refused(
    tmp_path: Path, name: str, values: list[float], units: str, sentence: str
) -> None:
    def change(data: xr.Dataset) -> xr.Dataset:
        return data.rename(valid_time=name).assign_coords({name: (name, values, {"units": units})})

    assert sentence in problem(edited(tmp_path / "a.nc", change))
