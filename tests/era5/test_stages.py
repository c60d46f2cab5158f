"""ERA5 through the stages: incremental updates, kills, sources, and real files from raw to windows."""

from __future__ import annotations

import io
import random
import shutil
import time
import zipfile
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from configs.weather import CdsSource, Recipe, SplitConfig, StoreLayout, WindowConfig
from flows.commands.views import print_asset
from flows.weather import weather
from storage.assets import Asset, AssetStore, verify
from storage.raw import find_files
from storage.window_dataset import WindowDataset
from tasks.era5.download import as_of, era5_cds
from tasks.era5.ingest import era5_windows
from tasks.era5.inputs import may_be_netcdf
from tasks.era5.prepare import era5_training_set
from tasks.era5.scan import era5_catalog
from tasks.progress import Silent
from tasks.session import Outcome, Session
from tasks.stage import raw_input
from tests import warm
from tests.era5.cds_server import TOKEN, CdsServer
from tests.era5.raw_files import field, hours, write_cds

LAYOUT = StoreLayout(chunk_time=4, chunk_space=4, shard_time=24, shard_chunks=(1, 1))


def ingest(
    store: AssetStore, folder: Path, recipe: Recipe | None = None, layout: StoreLayout = LAYOUT, bad: str = "error"
) -> tuple[Asset, list[Outcome]]:
    """Bring the files of a folder into a window store through the real stages."""
    session = Session(store, Silent())
    with session.active():
        raw = raw_input("files", find_files([str(folder)], may_be_netcdf))
        catalog = era5_catalog(raw=raw, on_bad_file=bad)
        windows = era5_windows(raw=raw, catalog=catalog, recipe=recipe or Recipe(), layout=layout)
    return windows, session.outcomes


def blocks(asset: Asset) -> dict[str, int]:
    """Return the inode of every data shard by its path."""
    return {f.path: (asset.folder / f.path).stat().st_ino for f in asset.manifest.files if "data/c/" in f.path}


def write_days(folder: Path, name: str, first: str, days: int, seed: int = 0, expver: str = "0001") -> Path:
    folder.mkdir(exist_ok=True)
    return write_cds(folder / name, {"t2m": field(24 * days, seed=seed)}, hours(first, 24 * days), expver=expver)


def test_same_files_twice_is_a_no_op_whatever_they_are_called(store, tmp_path):
    raw = tmp_path / "raw"
    write_days(raw, "a.nc", "2024-01-01", 2)
    first, _ = ingest(store, raw)
    (raw / "a.nc").rename(raw / "zzz.nc")
    shutil.copy(raw / "zzz.nc", raw / "copy.nc")
    second, outcomes = ingest(store, raw)
    assert [o.status for o in outcomes] == ["HIT", "HIT"]
    assert second.folder == first.folder


def test_lineage_leads_up_to_the_raw_files(store, tmp_path):
    write_days(tmp_path / "raw", "a.nc", "2024-01-01", 1)
    windows, _ = ingest(store, tmp_path / "raw")
    console = Console(record=True, width=300, file=io.StringIO())
    print_asset(console, store, f"{windows.kind}/{windows.key}")
    text = console.export_text()
    assert "era5_catalog" in text
    assert f"{tmp_path / 'raw' / 'a.nc'}" in text


def test_a_folder_is_searched_by_content_and_broken_files_by_name(tmp_path):
    good = write_days(tmp_path / "raw", "a.nc", "2024-01-01", 1)
    good.rename(tmp_path / "raw" / "data_without_suffix")
    (tmp_path / "raw" / "empty.nc").touch()
    (tmp_path / "raw" / "notes.txt").write_text("not data")
    (tmp_path / "raw" / ".half.nc").touch()
    found = find_files([str(tmp_path / "raw")], may_be_netcdf)
    assert [p.name for p in found] == ["data_without_suffix", "empty.nc"]


def test_a_new_month_rewrites_only_the_shards_it_touches(store, tmp_path):
    raw = tmp_path / "raw"
    write_days(raw, "january.nc", "2024-01-01", 31)
    before, _ = ingest(store, raw)
    write_days(raw, "february.nc", "2024-02-01", 2, seed=1)
    write_days(raw, "december.nc", "2023-12-30", 2, seed=2)  # earlier data move every block by two
    after, _ = ingest(store, raw)
    old, new = blocks(before), blocks(after)
    assert (len(old), len(new)) == (31 * 2 * 1, 35 * 2 * 1) or len(new) - len(old) == 4 * len(old) // 31
    for path, inode in old.items():
        array, chunks, block, *rest = path.split("/")
        assert new["/".join([array, chunks, str(int(block) + 2), *rest])] == inode, "taken over by hard link"
    data = xr.open_zarr(after.folder).data
    assert str(data.time.values[0])[:13] == "2023-12-30T00"
    np.testing.assert_array_equal(data.sel(time="2024-01").values[:, 0], field(24 * 31))


def test_final_data_replace_era5t_in_their_shards_alone(store, tmp_path):
    raw = tmp_path / "raw"
    write_days(raw, "preliminary.nc", "2024-01-01", 4, expver="0005")
    before, _ = ingest(store, raw)
    write_days(raw, "final.nc", "2024-01-02", 1, seed=9)
    after, outcomes = ingest(store, raw)
    data = xr.open_zarr(after.folder)
    np.testing.assert_array_equal(data.data.sel(time="2024-01-02").values[:, 0], field(24, seed=9))
    assert set(data.expver.sel(time="2024-01-02").values.ravel()) == {1}
    assert set(data.expver.sel(time="2024-01-03").values.ravel()) == {5}
    changed = {p.split("/")[2] for p, inode in blocks(after).items() if blocks(before)[p] != inode}
    assert changed == {"1"}
    assert after.manifest.counts["planes_era5t_replaced"] == 24
    assert "1 files new" in outcomes[0].reason


def test_a_month_that_was_downloaded_again_with_equal_values_changes_nothing_downstream(store, tmp_path):
    raw = tmp_path / "raw"
    write_days(raw, "a.nc", "2024-01-01", 3)
    before, _ = ingest(store, raw)
    (raw / "a.nc").unlink()
    write_cds(raw / "b.nc", {"t2m": field(72)}, hours("2024-01-01", 72), chunks=(1, 6, 8))  # other bytes, equal values
    after, outcomes = ingest(store, raw)
    assert outcomes[1].status == "RUN"
    data = [f for f in before.manifest.files if f.path.startswith("data/")]
    assert data == [f for f in after.manifest.files if f.path.startswith("data/")]


def test_bad_files_are_all_named_at_once_and_can_be_skipped(store, tmp_path, era5_data):
    raw = tmp_path / "raw"
    write_days(raw, "good.nc", "2024-01-01", 1)
    for name in ("corrupt_hdf_error.nc", "lfs_pointer.nc"):
        shutil.copy(era5_data / "edge" / name, raw)
    (raw / "empty.nc").touch()
    with pytest.raises(ValueError, match="3 of 4 raw files cannot be used") as error:
        ingest(store, raw)
    for word in ("corrupt_hdf_error.nc", "lfs_pointer.nc", "git lfs pull", "empty.nc", "on_bad_file=skip"):
        assert word in str(error.value)
    windows, _ = ingest(store, raw, bad="skip")
    assert xr.open_zarr(windows.folder).sizes["time"] == 24


@pytest.mark.input_shape(format="NetCDF", shape="a file that is replaced while it is read", outcome="refused")
@pytest.mark.parametrize("when", ["before the headers", "before the planes"])
def test_a_file_that_is_replaced_after_it_was_hashed_ends_the_run(store, tmp_path, when):
    path = write_days(tmp_path / "raw", "a.nc", "2024-01-01", 1)
    session = Session(store, Silent())

    def replace() -> None:
        write_days(tmp_path / "other", "b.nc", "2024-01-01", 1, seed=5).replace(path)

    def run() -> None:
        with session.active():
            raw = raw_input("files", [path])
            if when == "before the headers":
                replace()
            catalog = era5_catalog(raw=raw, on_bad_file="skip")
            replace()
            era5_windows(raw=raw, catalog=catalog, recipe=Recipe(), layout=LAYOUT)

    with pytest.raises(ValueError, match=r"a\.nc was changed after it had been hashed"):
        run()
    assert not store.assets("era5_windows")
    windows, _ = ingest(store, tmp_path / "raw")
    np.testing.assert_array_equal(xr.open_zarr(windows.folder).data.values[:, 0], field(24, seed=5))


@pytest.mark.input_shape(format="NetCDF", shape="a ZIP with one bad member, on_bad_file: skip", outcome="read")
def test_a_bad_member_does_not_take_the_good_ones_along(store, tmp_path):
    good = write_days(tmp_path / "parts", "good.nc", "2024-01-01", 1).read_bytes()
    (tmp_path / "raw").mkdir()
    with zipfile.ZipFile(tmp_path / "raw" / "both.zip", "w") as archive:
        archive.writestr("bad.nc", good[:3000])
        archive.writestr("good.nc", good)
    with pytest.raises(ValueError, match=r"both\.zip is a ZIP archive whose member bad\.nc is a damaged .*skip"):
        ingest(store, tmp_path / "raw")
    windows, _ = ingest(store, tmp_path / "raw", bad="skip")
    np.testing.assert_array_equal(xr.open_zarr(windows.folder).data.values[:, 0], field(24))


@pytest.mark.input_shape(format="NetCDF", shape="data that begin within a shard, e.g. at 22:00", outcome="read")
@pytest.mark.parametrize(
    "times", [hours("2024-01-01T22", 8), np.arange("2023-12", "2024-12", dtype="M8[M]").astype("M8[s]")]
)
def test_splits_begin_at_the_first_step_with_data(store, tmp_path, times):
    (tmp_path / "raw").mkdir()
    values = field(len(times))
    write_cds(tmp_path / "raw" / "a.nc", {"t2m": values}, times)
    windows, _ = ingest(store, tmp_path / "raw")
    config = WindowConfig(time=8, height=6, width=8, max_nan_share=1)
    with Session(store, Silent()).active():
        training = era5_training_set(
            store=windows, windows=config, splits=SplitConfig(validation_share=0, test_share=0)
        )
    assert training.manifest.counts["windows_train"] == 1 + (len(times) - 8) // 4
    assert training.manifest.counts["left_out_missing_steps"] == 0
    first = WindowDataset(windows.folder, training.folder, "train")[0]
    assert first["valid"].all() or np.isnan(values[:8]).any()
    assert int(first["time"]) == int(times[7].astype("M8[s]").astype(np.int64))


@pytest.mark.long
def test_killed_ingest_resumes_and_ends_byte_identical(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    values = field(24 * 60, grid=(64, 96))
    write_cds(
        raw / "a.nc", {"t2m": values}, hours("2024-01-01", 24 * 60),
        latitude=np.linspace(60, 30, 64), longitude=np.arange(96.0),
    )  # fmt: skip
    command = [
        *("flows", "run", "weather", "--profile", "files", "--engine", "inline"),
        *("--workers", "2", "--set", f"source.paths=[{raw}]", "--set", "windows.max_nan_share=1"),
    ]

    def start(root: str) -> warm.Process:
        return warm.start(*command, MILLRACE_ROOT=str(tmp_path / root))

    assert start("calm").wait(120) == 0
    chance = random.Random(4)
    for kill in range(5):
        process = start("killed")
        deadline = time.monotonic() + 60
        while ledger_entries(tmp_path / "killed") <= 3 * kill and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.wait()
    assert start("killed").wait(120) == 0
    calm, killed = (AssetStore(tmp_path / root).assets("era5_windows")[0] for root in ("calm", "killed"))
    assert killed.manifest.reason.startswith("continues")
    assert calm.fingerprint == killed.fingerprint
    assert verify(killed, deep=True) == []
    np.testing.assert_array_equal(xr.open_zarr(killed.folder).data.values[:, 0], values)


def ledger_entries(root: Path) -> int:
    return len(list((root / "era5_windows").glob("*.partial/.units/block-*.json")))


def test_cds_months_that_may_be_preliminary_are_fetched_again_and_others_are_not(store, monkeypatch):
    monkeypatch.setenv("CDSAPI_KEY", TOKEN)
    source = CdsSource(
        start=date(2023, 11, 1), end=date(2024, 1, 31), single_level=("2m_temperature",), hours=(0, 12),
        area=(60, 0, 59, 1), grid=0.5,
    )  # fmt: skip
    with CdsServer().running() as server:
        monkeypatch.setenv("CDSAPI_URL", server.url)

        def download(today: date) -> int:
            before = len(server.submitted)
            with Session(store, Silent()).active():
                era5_cds(source=source, as_of=as_of(source, today))
            return len(server.submitted) - before

        assert download(date(2024, 2, 10)) == 3
        assert download(date(2024, 2, 25)) == 0, "within a month nothing is asked again"
        assert download(date(2024, 4, 10)) == 3, "November is final now; the others may have changed"
        assert download(date(2024, 12, 1)) == 2, "December and January once more, now that they are final"
        assert download(date(2025, 12, 1)) == 0


def test_real_indonesia_gives_windows_of_8_64_64(store, tmp_path, era5_data):
    raw = tmp_path / "raw"
    raw.mkdir()
    shutil.copy(era5_data / "new_cds" / "indonesia_ssrd_accum_24x171x471.nc", raw)
    recipe = Recipe.model_validate({"variables": [{"variable": "ssrd", "accumulation": "since_00utc"}]})
    windows, _ = ingest(store, raw, recipe, StoreLayout())
    session = Session(store, Silent())
    config = WindowConfig(max_nan_share=0.9)
    one_split = SplitConfig(validation_share=0, test_share=0)
    with session.active():
        training_set = era5_training_set(store=windows, windows=config, splits=one_split)
    dataset = WindowDataset(windows.folder, training_set.folder, "train")
    assert len(dataset) > 0
    sample = dataset[0]
    assert tuple(sample["data"].shape) == (1, 8, 64, 64)
    with xr.open_dataset(raw / "indonesia_ssrd_accum_24x171x471.nc") as truth:
        place = {name: sample[name].numpy().astype(np.float64) for name in ("latitude", "longitude")}
        box = truth.ssrd.sel(place, method="nearest", tolerance=1e-3)
        times = truth.valid_time.values.astype("datetime64[s]").astype(np.int64)
        last = int(np.flatnonzero(times == int(sample["time"]))[0])
        expected = box.values[last - 7 : last + 1]
    physical = dataset.physical(sample["data"], sample["valid"])[0]
    np.testing.assert_allclose(physical, expected, rtol=0, atol=1e-7 * np.nanmax(expected))


def test_the_whole_flow_plans_and_runs_on_real_files(store, tmp_path, era5_data):
    """Iberia: classic, int16-packed, monthly, 39 % sea; the wiring as `millrace run` uses it."""
    from configs.weather_pipeline import WeatherConfig

    config = WeatherConfig.model_validate({
        "source": {"kind": "files", "paths": [str(era5_data / "classic" / "iberia_monthly_u10_d2m_t2m_24x91x141.nc")]},
        "windows": {"time": 2, "stride_time": 1, "height": 32, "width": 32, "stride_height": 16, "stride_width": 16,
                    "max_nan_share": 0.5},
    })  # fmt: skip
    session = Session(store, Silent())
    with session.active():
        training_set = weather(config)
    assert [o.status for o in session.outcomes] == ["RUN"] * 4
    windows = store.assets("era5_windows")[0]
    with xr.open_dataset(config.source.paths[0]) as truth:
        expected = truth.t2m.astype("float32").values
    stored = xr.open_zarr(windows.folder).data.sel(channel="t2m").values
    valid = xr.open_zarr(windows.folder).valid.sel(channel="t2m").values
    np.testing.assert_array_equal(stored[valid], expected)
    assert len(WindowDataset(windows.folder, training_set.folder, "train")) > 0
