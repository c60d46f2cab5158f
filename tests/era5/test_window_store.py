"""The window store: what was written is what every reader gets, whole or not at all."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import xarray as xr
import zarr
from numpy.typing import NDArray

from configs.weather import StoreLayout
from storage.files import walk_files
from storage.moments import merge_moments
from storage.window_store import BlockWriter, Geometry, WindowStore, block_file_rename, write_metadata
from tests.era5.stores import LAYOUT, geometry, hourly, noise, write_block, write_store


def with_gaps() -> NDArray[np.float32]:
    """Three blocks, the last one cut short; the middle one missing; single steps, patches and points of NaN."""
    data = noise((22, 3, 50, 90))
    data[8:16] = np.nan
    data[3] = np.nan
    data[5, 2] = np.nan
    data[:, 1, 3:20, 5:40] = np.nan
    data[1, 0, 49, 89] = np.nan
    return data


def expected(data: NDArray[np.float32], t: int, y: int, x: int, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    columns = np.arange(x, x + shape[2]) % data.shape[3]
    return data[t : t + shape[0], :, y : y + shape[1]][..., columns].transpose(1, 0, 2, 3)


@pytest.fixture(scope="module")
def gappy(tmp_path_factory: pytest.TempPathFactory) -> tuple[WindowStore, NDArray[np.float32]]:
    data = with_gaps()
    return write_store(tmp_path_factory.mktemp("gappy"), data, blocks_missing=(1,)), data


@pytest.mark.parametrize("codec", ["lz4", "zstd", "none"])
@pytest.mark.parametrize("layout", [(4, 16, 8, (2, 3)), (2, 8, 6, (1, 1)), (1, 64, 3, (8, 9)), (5, 7, 5, (3, 20))])
def test_all_readers_return_what_was_written(
    tmp_path: Path, codec: Any, layout: tuple[int, int, int, tuple[int, int]]
) -> None:
    data = with_gaps()
    chunk_time, chunk_space, shard_time, shard_chunks = layout
    store = write_store(
        tmp_path,
        data,
        StoreLayout(
            chunk_time=chunk_time,
            chunk_space=chunk_space,
            shard_time=shard_time,
            shard_chunks=shard_chunks,
            codec=codec,
        ),
    )
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{tmp_path}/data/"}}
    by_tensorstore = tensorstore.open(spec, read=True).result().read().result()
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "data", mode="r")[:], data)
    np.testing.assert_array_equal(by_tensorstore, data)
    np.testing.assert_array_equal(store.read(0, 0, 0, (22, 50, 90)), data.transpose(1, 0, 2, 3))


def test_xarray_opens_it_without_a_warning(gappy: tuple[WindowStore, NDArray[np.float32]]) -> None:
    store, data = gappy
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xr.open_zarr(store.folder, chunks=None)
    assert dataset["data"].dims == ("time", "channel", "latitude", "longitude")
    assert set(dataset.coords) == {"time", "channel", "latitude", "longitude"}
    np.testing.assert_array_equal(dataset["time"].values, hourly(22))
    assert dataset["channel"].values.tolist() == ["u10", "v10", "t@850"] == list(store.channels)
    np.testing.assert_array_equal(dataset["longitude"].values, store.longitude)
    np.testing.assert_array_equal(dataset["data"].sel(channel="t@850").values, data[:, 2])
    for name in ("valid", "expver", "source", "moments", "nan_cells"):
        np.testing.assert_array_equal(dataset[name].values, store.side(name))
    assert dataset.attrs["units"] == {"u10": "K", "v10": "K", "t@850": "K"}


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 0, (8, 32, 32)),
        (4, 16, 48, (8, 32, 32)),
        (3, 5, 7, (9, 30, 40)),
        (0, 0, 0, (1, 1, 1)),
        (21, 49, 89, (1, 1, 1)),
        (1, 18, 64, (6, 32, 32)),
        (2, 3, 80, (5, 17, 90)),
    ],
)
def test_boxes_equal_numpy_slices_also_across_the_seam(
    gappy: tuple[WindowStore, NDArray[np.float32]], box: tuple[int, int, int, tuple[int, int, int]]
) -> None:
    store, data = gappy
    np.testing.assert_array_equal(store.read(*box), expected(data, *box))


@pytest.mark.parametrize(
    "box", [(15, 0, 0, (8, 8, 8)), (0, 48, 0, (1, 8, 8)), (-1, 0, 0, (1, 8, 8)), (0, 0, 0, (1, 8, 91))]
)
def test_boxes_outside_are_refused(
    gappy: tuple[WindowStore, NDArray[np.float32]], box: tuple[int, int, int, tuple[int, int, int]]
) -> None:
    with pytest.raises(ValueError, match="not inside the store"):
        gappy[0].read(*box)


def test_a_regional_grid_does_not_wrap(tmp_path: Path) -> None:
    shape = geometry(1, 16, 40)
    shape.longitude[:] = np.arange(40)
    write_block(tmp_path, shape, 0, noise((8, 1, 16, 40)))
    write_metadata(tmp_path, shape, hourly(8), {})
    with pytest.raises(ValueError, match="not inside the store"):
        WindowStore.open(tmp_path).read(0, 0, 30, (4, 16, 16))


def test_side_arrays_describe_the_data(gappy: tuple[WindowStore, NDArray[np.float32]]) -> None:
    store, data = gappy
    valid = ~np.isnan(data).all(axis=(2, 3))
    np.testing.assert_array_equal(store.side("valid"), valid)
    np.testing.assert_array_equal(store.side("expver"), np.where(valid, 5, 0))
    np.testing.assert_array_equal(store.side("source", 17, 20), np.full((3, 3), 2**63 + 2, np.uint64))
    nan = np.isnan(data) & valid[:, :, None, None]
    cells = np.add.reduceat(np.add.reduceat(nan, range(0, 50, 16), axis=2, dtype=int), range(0, 90, 16), axis=3)
    np.testing.assert_array_equal(store.side("nan_cells"), cells)


def test_moments_equal_numpy_in_double_precision(gappy: tuple[WindowStore, NDArray[np.float32]]) -> None:
    store, data = gappy
    count, mean, m2, low, high = np.moveaxis(store.side("moments"), -1, 0)
    for t, c in np.argwhere(store.side("valid")):
        values = data[t, c][~np.isnan(data[t, c])].astype(np.float64)
        assert (count[t, c], low[t, c], high[t, c]) == (values.size, values.min(), values.max())
        np.testing.assert_allclose([mean[t, c], m2[t, c] / values.size], [values.mean(), values.var()], rtol=1e-12)
    assert not store.side("moments")[~store.side("valid")].any()
    merged = merge_moments(store.side("moments"))
    for c in range(3):
        values = data[:, c][~np.isnan(data[:, c])].astype(np.float64)
        np.testing.assert_allclose(merged[c, 1], values.mean(), rtol=1e-12)
        np.testing.assert_allclose(merged[c, 2] / merged[c, 0], values.var(), rtol=1e-12)


def test_a_block_is_the_same_bytes_wherever_and_whenever_it_is_written(tmp_path: Path) -> None:
    shape, data = geometry(3, 50, 90), with_gaps()[:8]
    first = write_block(tmp_path / "a", shape, 0, data)
    again = write_block(tmp_path / "b", shape, 0, data)
    assert sorted(first) == sorted(walk_files(tmp_path / "a")) == sorted(again)
    for path in first:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()
    for path in first:
        moved = tmp_path / "c" / block_file_rename(path, 2)
        moved.parent.mkdir(parents=True, exist_ok=True)
        os.link(tmp_path / "a" / path, moved)
    write_metadata(tmp_path / "c", shape, hourly(24), {})
    store = WindowStore.open(tmp_path / "c")
    np.testing.assert_array_equal(store.read(16, 0, 0, (8, 50, 90)), data.transpose(1, 0, 2, 3))
    assert not store.side("valid", 0, 16).any()
    assert np.isnan(store.read(0, 0, 0, (16, 50, 90))).all()


def _die_writing(folder: Path, shape: Geometry, data: NDArray[np.float32]) -> None:
    with BlockWriter(folder, shape, 0) as writer:
        writer.write_slab(0, data)
        os._exit(9)


def test_an_aborted_writer_leaves_nothing_and_a_killed_one_only_tmp_files(tmp_path: Path) -> None:
    shape, data = geometry(3, 50, 90), noise((4, 3, 50, 90))

    def abort() -> None:
        with BlockWriter(tmp_path, shape, 0) as writer:
            writer.write_slab(0, data)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        abort()
    assert not list(walk_files(tmp_path))
    killed = multiprocessing.get_context("fork").Process(target=_die_writing, args=(tmp_path, shape, data))
    killed.start()
    killed.join()
    assert {Path(p).suffix for p in walk_files(tmp_path)} == {".tmp"}
    whole = np.concatenate([data, data])
    assert sorted(write_block(tmp_path, shape, 0, whole)) == sorted(walk_files(tmp_path))


def test_memory_of_the_writer_is_a_small_part_of_a_slab(tmp_path: Path) -> None:
    data = noise((4, 4, 721, 480))
    with BlockWriter(tmp_path, geometry(4, 721, 480), 0) as writer:
        tracemalloc.start()
        writer.write_slab(0, data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < data.nbytes / 8


@pytest.mark.parametrize("fault", ["index", "truncated", "emptied", "chunk", "gone"])
def test_damage_is_named(tmp_path: Path, fault: str) -> None:
    store = write_store(tmp_path, noise((8, 3, 50, 90)))
    shard = tmp_path / "data/c/0/0/1/1"
    content = bytearray(shard.read_bytes())
    if fault == "index":
        content[-10] ^= 1
    elif fault == "truncated":
        del content[-100:]
    elif fault == "emptied":
        content.clear()
    else:
        content[4] ^= 1
    shard.write_bytes(content)
    if fault == "gone":
        shard.unlink()
    store.read(0, 0, 0, (8, 32, 48))
    with pytest.raises(ValueError, match=r"data/c/0/0/1/1 is (damaged|gone).*verify"):
        store.read(0, 32, 48, (8, 16, 32))


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no zarr\.json"):
        WindowStore.open(tmp_path)


def checksum(store: WindowStore) -> str:
    digest = hashlib.sha256()
    for y in range(0, 32, 5):
        digest.update(store.read(0, y, 2 * y, (8, 16, 32)).tobytes())
    return digest.hexdigest()


def _send_checksum(store: WindowStore, results: Any) -> None:
    results.put(checksum(store))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_share_a_store_that_was_read_before(
    gappy: tuple[WindowStore, NDArray[np.float32]], method: str
) -> None:
    store = gappy[0]
    wanted = checksum(store)
    context = multiprocessing.get_context(method)
    results = context.Queue()
    with store._shards._lock:  # as if another thread were reading when the process forks
        child = context.Process(target=_send_checksum, args=(store, results))
        child.start()
    assert results.get(timeout=400) == wanted
    child.join()


def test_threads_share_a_store_with_more_shards_than_stay_open(
    gappy: tuple[WindowStore, NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.shards.OPEN_SHARDS", 2)
    store = WindowStore.open(gappy[0].folder)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(checksum, [store] * 32))
    assert set(found) == {checksum(gappy[0])}
    assert len(store._shards._shards) <= 2


def test_real_fields_shrink_and_come_back_exactly(era5_data: Path, tmp_path: Path) -> None:
    with xr.open_dataset(era5_data / "new_cds/indonesia_ssrd_accum_24x171x471.nc") as raw:
        values = raw["ssrd"].values[:, None].astype(np.float32)
    store = write_store(tmp_path, values, StoreLayout(shard_time=24))
    np.testing.assert_array_equal(store.read(0, 0, 0, (24, 171, 471))[0], values[:, 0])
    assert sum(f.stat().st_size for f in (tmp_path / "data").rglob("*") if f.is_file()) < 0.8 * values.nbytes
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(ValueError, match="is gone"):
        WindowStore.open(tmp_path).read(0, 0, 0, (8, 64, 64))


def test_layout_shrinks_to_a_small_grid() -> None:
    shape = geometry(1, 20, 40, LAYOUT)
    assert (shape.cells, shape.shard_chunks, shape.shards) == ((2, 3), (2, 2, 3), (1, 1))
