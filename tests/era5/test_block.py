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
from tasks.era5.block import block_identity, list_blocks, write_block
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
    ssrd,
    stored,
    sunshine,
    totals,
    write_cds,
)

DAY = hours("2024-01-01T00", 24)


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
