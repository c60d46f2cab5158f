"""The catalog says what files hold, or in one sentence why they cannot be used."""

from __future__ import annotations

import gzip
import io
import zipfile
from datetime import datetime
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from tasks.era5.catalog import ERA5T, FINAL, FileScan, Member, scan_file
from tasks.era5.grid import canonical_grid
from tests.era5.raw_files import LATITUDE, field, hours, sha256, write_cds, write_classic


def scan_one(path: Path) -> FileScan:
    return scan_file(path, sha256(path), path.parent / "members")


def member_of(path: Path) -> Member:
    scan = scan_one(path)
    assert scan.problem is None, scan.problem
    (member,) = scan.members
    return member


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def small_cds(tmp_path: Path) -> Path:
    return write_cds(tmp_path / "small.nc", {"t2m": field(3)}, hours("2024-03-01T00", 3))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty; download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "is a Git LFS pointer, not data"),
        (b"<!DOCTYPE html><html>502</html>", "is an HTML or JSON page"),
        (b'\n{"detail": "not found"}', "is an HTML or JSON page"),
        (b"GRIB\x00\x00\x00\x02", "is GRIB, not NetCDF"),
        (gzip.compress(b"CDF\x01", mtime=0), "gunzip"),
        (b"PK\x05\x06" + bytes(18), "is a ZIP archive without content"),
        (b"\x00\x01\x02\x03 noise", "is not NetCDF"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is a damaged or cut-off NetCDF file"),
        (b"CDF\x01\x00\x00", "has a damaged or cut-off classic NetCDF header"),
        (b"PK\x03\x04 no archive", "is a damaged or cut-off ZIP archive"),
    ],
)
def test_content_that_is_no_data_gets_a_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "era5.nc"
    path.write_bytes(content)
    scan = scan_one(path)
    assert scan.problem is not None
    assert sentence in scan.problem
    assert not scan.members
    assert str(tmp_path) not in scan.model_dump_json()


@pytest.mark.parametrize("kept", [0.2, 0.9, 0.999])
def test_cut_off_files_are_found_though_the_netcdf_library_reads_zeros(tmp_path: Path, kept: float) -> None:
    whole = write_classic(tmp_path / "whole.nc", {"t2m": field(40), "d2m": field(40)}, hours("2024-01-01T00", 40))
    assert scan_one(whole).problem is None
    cut = tmp_path / "cut.nc"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * kept)])
    assert "cut" in (scan_one(cut).problem or "")


@pytest.mark.parametrize("file_format", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"])
@pytest.mark.parametrize("variables", [1, 3])
def test_record_files_are_whole_up_to_their_last_byte(tmp_path: Path, file_format: str, variables: int) -> None:
    path = tmp_path / "records.nc"
    with netCDF4.Dataset(path, "w", format=file_format) as file:
        file.createDimension("time", None)
        for name, values in {"latitude": LATITUDE, "longitude": np.arange(3.0)}.items():
            file.createDimension(name, len(values))
            file.createVariable(name, "f8", (name,))[:] = values
        file.createVariable("time", "i4", ("time",)).units = "hours since 2024-01-01"
        for i in range(variables):
            file.createVariable(f"v{i}", "i2", ("time", "latitude", "longitude"))
        file["time"][:] = np.arange(5)
        for i in range(variables):
            file[f"v{i}"][:] = np.ones((5, 6, 3))
    assert member_of(path).length == 5
    path.write_bytes(path.read_bytes()[:-4])
    assert "is cut off" in (scan_one(path).problem or "")


def test_every_real_file_is_described_or_refused_for_the_right_reason(era5_data: Path, tmp_path: Path) -> None:
    expected = {
        "corrupt_hdf_error.nc": "is a damaged or cut-off NetCDF file",
        "lfs_pointer.nc": "is a Git LFS pointer, not data",
        "eraint_uvz_2x3x241x480.nc": "has no time coordinate (dimensions: longitude 480",
    }
    files = sorted(era5_data.rglob("*.nc"))
    assert len(files) == 16
    for path in files:
        scan = scan_file(path, sha256(path), tmp_path)
        assert FileScan.model_validate_json(scan.model_dump_json()) == scan
        assert (expected[path.name] in (scan.problem or "")) if path.name in expected else not scan.problem
        assert not scan.skipped
        if not scan.problem:
            (member,) = scan.members
            with xr.open_dataset(path) as reference:
                time = next((reference[n] for n in ("valid_time", "time") if n in reference), None)
                names = {str(n) for n in reference.data_vars}
                assert {v.name for v in member.variables} == names
                assert {v.name: v.units for v in member.variables} == {n: reference[n].units for n in names}
                if time is not None:
                    np.testing.assert_array_equal(member.seconds().astype("datetime64[s]"), time.values)


def test_real_headers_hold_what_the_manifest_says(era5_data: Path) -> None:
    mediterranean = member_of(era5_data / "classic" / "mediterranean_expver_dim_514x2x9x21.nc")
    assert mediterranean.layers == (FINAL, ERA5T)
    runs = {p.layer: p.runs for p in mediterranean.variables[0].present}
    assert runs == {0: ((0, 512),), 1: ((512, 2),)}
    california = member_of(era5_data / "new_cds" / "california_ztuv_pl_270x8x9x9.nc")
    assert california.variables[0].levels == (975, 925, 875, 825, 775, 700, 600, 500)
    moda = member_of(era5_data / "edge" / "moda_date_dim_int64_490x2x3.nc")
    assert moda.seconds()[:2].astype("datetime64[s]").tolist() == [datetime(1984, 1, 1), datetime(1984, 2, 1)]
    assert moda.versions == ((FINAL, 488), (ERA5T, 2))
    assert {v.step_type for v in moda.variables} == {"avgad", "avgua"}


def test_archive_members_are_unpacked_by_content_whatever_they_are_called(era5_data: Path, tmp_path: Path) -> None:
    raw = [era5_data / "new_cds" / f"maroc_{name}_daily_366x61x65.nc" for name in ("t2m_instant", "tp_accum")]
    path = tmp_path / "box" / "request.nc"
    path.parent.mkdir()
    names = ["../../../evil.nc", "/data_stream\x07.nc"]
    path.write_bytes(zipped({name: file.read_bytes() for name, file in zip(names, raw, strict=True)}))
    scan = scan_one(path)
    assert scan.problem is None
    assert [m.sha256 for m in scan.members] == [sha256(file) for file in raw]
    for member, file in zip(scan.members, raw, strict=True):
        assert member.model_copy(update={"entry": None}) == member_of(file)
        assert (path.parent / "members" / f"{member.sha256}.nc").read_bytes() == file.read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"box"}
    assert "\x07" not in str(scan.members[1].entry)


def test_archives_that_cannot_be_trusted_are_refused(tmp_path: Path, small_cds: Path) -> None:
    data = small_cds.read_bytes()
    contents = {
        "grows from": zipped({"bomb.nc": bytes(3_000_000)}),
        "without NetCDF (ZIP member a.grib is GRIB": zipped({"a.grib": b"GRIB0000"}),
        "without NetCDF (ZIP member in.zip is a ZIP archive itself": zipped({"in.zip": zipped({"a.nc": data})}),
        "without NetCDF (no members)": zipped({"folder/": b""}),
        "damaged or cut-off ZIP archive": zipped({"a.nc": data})[:-30],
        "member b.nc is a damaged or cut-off NetCDF file": zipped({"a.nc": data, "b.nc": data[:2000]}),
    }
    broken = bytearray(zipped({"a.nc": data}, zipfile.ZIP_STORED))
    broken[len(broken) // 2] ^= 0xFF
    contents["Bad CRC-32"] = bytes(broken)
    for sentence, content in contents.items():
        path = tmp_path / "archive.nc"
        path.write_bytes(content)
        assert sentence in (scan_one(path).problem or ""), sentence


def test_other_files_in_an_archive_are_named(tmp_path: Path, small_cds: Path) -> None:
    path = tmp_path / "archive.nc"
    path.write_bytes(zipped({"a.nc": small_cds.read_bytes(), "readme.txt": b"hello there"}))
    scan = scan_one(path)
    assert len(scan.members) == 1
    assert "readme.txt is not NetCDF" in scan.skipped[0]


@pytest.mark.parametrize(
    ("units", "calendar", "values"),
    [
        ("hours since 1900-01-01 00:00:00.0", "gregorian", np.array([797688, 1092000], "i4")),
        ("hours since 0001-01-01 00:00:00", "standard", np.array([17_500_000, 17_500_001], "i4")),
        ("days since 1970-01-01", "proleptic_gregorian", np.array([0.25, 19000.0 + 1 / 3])),
        ("minutes since 2020-02-28T23:00:00Z", "standard", np.array([0, 120], "i8")),
        ("seconds since 1970-01-01 00:00:00 +01:00", "proleptic_gregorian", np.array([-3600, 1_700_000_000], "i8")),
        ("days since 1850-01-01", "gregorian", np.array([60000.5, 60001.5], "f4")),
    ],
)
def test_times_are_those_of_cftime(
    tmp_path: Path, small_cds: Path, units: str, calendar: str, values: np.ndarray
) -> None:
    path = tmp_path / "times.nc"
    with xr.open_dataset(small_cds, decode_times=False) as source:
        part = source.isel(valid_time=slice(0, 2)).drop_vars("valid_time").rename(valid_time="time")
        part.assign_coords(time=("time", values, {"units": units, "calendar": calendar})).to_netcdf(path)
    wanted = [d.isoformat(timespec="seconds") for d in netCDF4.num2date(values, units, calendar)]
    assert member_of(path).seconds().astype("datetime64[s]").astype(str).tolist() == wanted


def edit(source: Path, target: Path, change: str) -> Path:
    """Rewrite a CDS file with one trait changed."""
    with xr.open_dataset(source, decode_times=False) as data:
        time = data.valid_time
        match change:
            case "360_day":
                data = data.assign_coords(valid_time=time.assign_attrs(units="days since 2000-01-01", calendar=change))
            case "no units":
                data = data.assign_coords(valid_time=("valid_time", time.values))
            case "missing time":
                values = np.where(np.arange(3) == 1, np.nan, time.values.astype(float))
                data = data.assign_coords(valid_time=("valid_time", values, time.attrs))
            case "ensemble":
                data = data.drop_vars("number").expand_dims(number=[0, 1])
            case "number of size 1":
                data = data.drop_vars("number").expand_dims(number=[0])
            case "scalar time":
                data = data.isel(valid_time=1)
            case "depth":
                data["deep"] = data.t2m.expand_dims(depth=[1, 2])
            case "static":
                data["lsm"] = data.t2m.isel(valid_time=0, drop=True)
            case "projected":
                latitude = data.latitude.broadcast_like(data.t2m.isel(valid_time=0))
                data = data.rename(latitude="y", longitude="x").assign_coords(latitude=(("y", "x"), latitude.values))
            case "point":
                data = data.isel(latitude=0, longitude=0)
            case "steps":
                values = time.values + np.array([[0], [1]])
                data = data.rename(valid_time="time").drop_vars("time").expand_dims(step=2)
                data = data.assign_coords(valid_time=(("step", "time"), values, time.attrs))
            case "shuffled latitude":
                data = data.isel(latitude=[0, 2, 1, 3, 4, 5])
            case "short names":
                data = data.rename(latitude="lat", longitude="lon", valid_time="time")
            case "integer expver":
                data = data.drop_vars("expver").assign_coords(expver=5)
            case "other expver":
                data = data.assign_coords(expver=("valid_time", ["0078", "prod", "0001"]))
        data.to_netcdf(target)
    return target


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("360_day", "has times in a 360_day calendar"),
        ("no units", "has no time coordinate"),
        ("missing time", "has missing values in its time coordinate"),
        ("ensemble", "holds 2 ensemble members"),
        ("projected", "has a latitude with two dimensions"),
        ("steps", "has a valid_time with two dimensions"),
        ("shuffled latitude", "has latitudes in no order"),
    ],
)
def test_files_that_cannot_be_placed_get_a_sentence(
    tmp_path: Path, small_cds: Path, change: str, sentence: str
) -> None:
    assert sentence in (scan_one(edit(small_cds, tmp_path / "edited.nc", change)).problem or "")


@pytest.mark.parametrize("change", ["number of size 1", "short names", "scalar time", "integer expver", "other expver"])
def test_harmless_differences_do_not_matter(tmp_path: Path, small_cds: Path, change: str) -> None:
    plain, edited = member_of(small_cds), member_of(edit(small_cds, tmp_path / "edited.nc", change))
    assert edited.grid == plain.grid
    kept = slice(1, 2) if change == "scalar time" else slice(None)
    assert edited.seconds().tolist() == plain.seconds()[kept].tolist()
    versions = {"integer expver": ((ERA5T, 3),), "other expver": ((0, 2), (FINAL, 1)), "scalar time": ((FINAL, 1),)}
    assert edited.versions == versions.get(change, ((FINAL, 3),))


@pytest.mark.parametrize(
    ("change", "note"),
    [("depth", "variable deep has a dimension depth of length 2"), ("static", "variable lsm does not vary in time")],
)
def test_variables_that_do_not_fit_are_named(tmp_path: Path, small_cds: Path, change: str, note: str) -> None:
    scan = scan_one(edit(small_cds, tmp_path / "edited.nc", change))
    assert [v.name for v in scan.members[0].variables] == ["t2m"]
    assert note in scan.skipped[0]


def test_pressure_levels_in_any_form(tmp_path: Path) -> None:
    path = write_cds(tmp_path / "levels.nc", {"t": field(2, 2)}, hours("2024-01-01T00", 2), levels=(850, 500))
    assert member_of(path).variables[0].levels == (850, 500)
    with xr.open_dataset(path) as data:
        pascal = data.assign_coords(pressure_level=("pressure_level", [85000.0, 50000.0], {"units": "Pa"}))
        pascal.to_netcdf(tmp_path / "pascal.nc")
        data.rename(pressure_level="level").to_netcdf(tmp_path / "classic.nc")
        data.isel(pressure_level=1).to_netcdf(tmp_path / "scalar.nc")
        model = data.assign_coords(pressure_level=("pressure_level", [136.0, 137.0], {"units": "1"}))
        model.to_netcdf(tmp_path / "model.nc")
    assert member_of(tmp_path / "pascal.nc").variables[0].levels == (850, 500)
    assert member_of(tmp_path / "classic.nc").variables[0].levels == (850, 500)
    assert member_of(tmp_path / "scalar.nc").variables[0].levels == (500,)
    assert "lies on pressure_levels that are not pressures" in (scan_one(tmp_path / "model.nc").problem or "")


@given(
    start=st.integers(-720, 1440),
    step=st.sampled_from([0.1, 0.25, 0.75, 1.0]),
    count=st.integers(2, 60),
    turns=st.integers(-1, 1),
    reverse=st.booleans(),
    single=st.booleans(),
)
def test_longitudes_become_contiguous_and_keep_their_columns(
    start: int, step: float, count: int, turns: int, reverse: bool, single: bool
) -> None:
    true = start * 0.25 + step * np.arange(count)
    stored = (true + 180) % 360 - 180 + 360 * turns
    stored = stored[::-1] if reverse else stored
    stored = stored.astype(np.float32) if single else stored
    grid, orientation = canonical_grid(LATITUDE, stored)
    columns = grid.longitude.coordinates()
    np.testing.assert_allclose(np.diff(columns), step, atol=1e-4)
    assert columns[0] >= 0 or columns[-1] >= 0 > columns[0]
    assert columns[-1] < 360
    placed = np.empty((len(LATITUDE), count))
    orientation.place(np.broadcast_to(stored, placed.shape), placed)
    np.testing.assert_allclose((placed - columns + 180) % 360, 180, atol=1e-4)


@pytest.mark.parametrize(
    ("stored", "first", "last"),
    [
        (np.arange(-180, 180, 0.75), 0, 359.25),
        (np.arange(0, 360, 0.25), 0, 359.75),
        (np.arange(-10, 4.01, 0.1), -10, 4),
        (np.arange(-17, -0.9, 0.25), 343, 359),
        (np.array([0.0, 1, 2, 358, 359]), -2, 2),
        (np.arange(-179.875, 180, 0.25), 0.125, 359.875),
    ],
)
def test_the_canonical_start_of_longitudes(stored: np.ndarray, first: float, last: float) -> None:
    axis = canonical_grid(LATITUDE[::-1], stored)[0].longitude
    assert (axis.first, axis.last) == (first, last)


def test_a_meridian_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="holds a meridian twice"):
        canonical_grid(LATITUDE, np.arange(-180.0, 181.0))
