"""Windows, splits, exclusions and statistics, against plain NumPy."""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from configs.weather import Period, SplitConfig, WindowConfig
from storage.sampling import KeyedBatchSampler
from storage.training_set import TrainingSet, normalisation
from storage.usable import judge_windows
from storage.window_dataset import WindowDataset
from storage.window_store import BlockWriter, WindowStore, write_metadata
from storage.windows import Bits, WindowGrid
from tasks.era5.training_set import build_training_set, split_periods
from tests.era5.stores import geometry, hourly, noise, write_block, write_store

SMALL = WindowConfig(time=4, height=32, width=32, stride_time=4, stride_height=16, stride_width=16)
TRAIN_ONLY = SplitConfig(validation_share=0, test_share=0)
HALVES = SplitConfig(validation_share=0.25, test_share=0.25)


def grid_of(config: WindowConfig, steps: int, plane: tuple[int, int], *, is_global: bool = True) -> WindowGrid:
    return WindowGrid.of(config, hourly(steps), plane, is_global=is_global)


def test_global_quarter_degree_has_924_windows_per_step() -> None:
    grid = grid_of(WindowConfig(), 24, (721, 1440))
    assert (grid.time.count, grid.rows.count, grid.cols.count) == (5, 21, 44)
    assert len(grid) == 5 * 924
    assert [grid.origin(i) for i in (0, 43, 44, 924, len(grid) - 1)] == [
        (0, 0, 0),
        (0, 0, 1376),
        (0, 32, 0),
        (4, 0, 0),
        (16, 640, 1376),
    ]


def test_edges_and_the_seam_add_windows() -> None:
    edges = grid_of(WindowConfig(cover_edges=True), 24, (721, 1440))
    assert edges.rows.origins()[-2:].tolist() == [640, 657]
    assert edges.cols.count == 44
    seam = grid_of(WindowConfig(wrap_longitude=True), 24, (721, 1440))
    assert seam.cols.origins()[-2:].tolist() == [1376, 1408]
    with pytest.raises(ValueError, match=r"windows\.wrap_longitude needs a grid that goes around the globe"):
        grid_of(WindowConfig(wrap_longitude=True), 24, (721, 1440), is_global=False)


@pytest.mark.parametrize(("anchor", "step"), [("first", 0), ("middle", 3), ("last", 5)])
def test_the_anchor_is_a_step_of_the_window(anchor: str, step: int) -> None:
    config = WindowConfig.model_validate({"time": 6, "anchor": anchor})
    assert grid_of(config, 24, (64, 70)).anchor_step == step


@settings(deadline=None)
@given(st.data())
def test_origins_are_in_order_inside_and_complete(draw: st.DataObject) -> None:
    number = st.integers(1, 9)
    length, stride, size = draw.draw(number), draw.draw(number), draw.draw(st.integers(9, 40))
    cover = draw.draw(st.booleans())
    config = WindowConfig(
        time=1, stride_time=1, height=length, width=1, stride_height=stride, stride_width=1, cover_edges=cover
    )
    grid = grid_of(config, 2, (size, 1))
    origins = [grid.origin(i) for i in range(len(grid))]
    wanted = list(range(0, size - length + 1, stride))
    if cover and wanted[-1] + length < size:
        wanted.append(size - length)
    assert origins == list(product(range(2), wanted, [0]))


def test_the_last_day_counts_in_whole() -> None:
    def steps(**limits: Any) -> tuple[int, int]:
        axis = grid_of(WindowConfig(**limits), 72, (64, 64)).time
        return axis.first, axis.stop

    assert steps(time_start=date(2024, 1, 2), time_end=date(2024, 1, 2)) == (24, 48)
    assert steps(time_end=datetime(2024, 1, 2)) == (0, 25)
    assert steps(time_start=datetime(2024, 1, 1, 6, tzinfo=UTC), time_end=date(2030, 1, 1)) == (6, 72)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"time": 25},
            r"No windows: windows.time is 25 steps, but 24 of .* widen the time range or lower windows.time",
        ),
        ({"time_start": "2024-02-01"}, r"No windows: windows.time is 8 steps, but 0 of .* widen the time range"),
        ({"height": 65}, r"No windows: windows.height is 65 cells, but the grid has 64; .* lower windows.height"),
        ({"width": 80}, r"No windows: windows.width is 80 cells, but the grid has 70; .* lower windows.width"),
        ({"width": 80, "wrap_longitude": True}, r"No windows: windows.width is 80 cells, but the grid has 70"),
    ],
)
def test_no_window_is_an_error_with_numbers(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid_of(WindowConfig(**config), 24, (64, 70))


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=2000), st.integers(0, 7))
def test_rank_and_select(content: bytes, cut: int) -> None:
    size = 8 * len(content) - cut
    flags = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")[:size]
    bits = Bits.of(np.packbits(flags, bitorder="little"), size)
    positions = np.flatnonzero(flags).tolist()
    assert [bits.select(k) for k in range(len(positions))] == positions
    for position in (0, size // 3, size - 1, size):
        assert bits.rank(position) == flags[:position].sum()


def test_select_across_many_superblocks() -> None:
    flags = np.zeros(100_000, bool)
    flags[[0, 2047, 2048, 50_000, 99_999]] = True
    bits = Bits.of(np.packbits(flags, bitorder="little"), len(flags))
    assert [bits.select(k) for k in range(5)] == [0, 2047, 2048, 50_000, 99_999]
    assert [bits.rank(p) for p in (2048, 2049, 99_999, 100_000)] == [2, 3, 4, 5]


def test_bits_of_another_size_or_kind_are_refused(tmp_path: Path) -> None:
    Bits.of(np.zeros(4, np.uint8), 30).save(tmp_path / "bits.npy")
    assert Bits.load(tmp_path / "bits.npy", 30).size == 30
    np.save(tmp_path / "wide.npy", np.zeros(4, np.int64))
    for name, size in (("bits.npy", 40), ("wide.npy", 30)):
        with pytest.raises(ValueError, match=f"does not hold {size} bits; build the training set again"):
            Bits.load(tmp_path / name, size)


shares = st.sampled_from([0.0, 0.1, 0.15, 0.3, 0.45])


@settings(max_examples=200, deadline=None)
@given(
    validation=shares,
    test=shares,
    cycles=st.integers(1, 4),
    gap=st.none() | st.integers(1, 12),
    steps=st.integers(20, 400),
    window=st.integers(1, 8),
    stride=st.integers(1, 5),
    start=st.integers(0, 9),
)
def test_windows_of_different_splits_keep_the_gap(
    validation: float, test: float, cycles: int, gap: int | None, steps: int, window: int, stride: int, start: int
) -> None:
    config = SplitConfig(validation_share=validation, test_share=test, cycles=cycles, gap=gap)
    windows = WindowConfig(
        time=window,
        stride_time=stride,
        height=1,
        width=1,
        time_start=datetime(2024, 1, 1, start, tzinfo=UTC),
    )
    grid = grid_of(windows, steps, (1, 1))
    try:
        periods = split_periods(config, hourly(steps), (grid.time.first, grid.time.stop), window)
    except ValueError as error:
        assert "a window needs" in str(error)  # noqa: PT017
        return
    labels = np.full(steps, "", object)
    for name, blocks in periods.items():
        for block in blocks:
            for k in range(*grid.time.within(*block)):
                origin = grid.time.origin(k)
                assert block[0] <= origin < origin + window <= block[1]
                labels[origin : origin + window] = name
    used = np.flatnonzero(labels)
    changes = used[1:][labels[used[1:]] != labels[used[:-1]]] - used[:-1][labels[used[1:]] != labels[used[:-1]]]
    assert (changes > max(gap or 0, window)).all()
    assert list(periods) == [n for n, s in (("train", 1), ("validation", validation), ("test", test)) if s]


def test_shares_and_order_of_the_splits() -> None:
    periods = split_periods(SplitConfig(cycles=2), hourly(1040), (0, 1040), 8)
    assert periods == {
        "train": [(0, 350), (524, 874)],
        "validation": [(358, 433), (882, 957)],
        "test": [(441, 516), (965, 1040)],
    }


def period(first: int, last: int) -> Period:
    return Period(start=date(2024, 1, first), end=date(2024, 1, last))


def test_explicit_periods_hold_their_days_and_join() -> None:
    config = SplitConfig(train=(period(5, 6), period(1, 2), period(3, 3)), test=(period(8, 9),))
    assert split_periods(config, hourly(24 * 8 + 12), (12, 24 * 8 + 12), 8) == {
        "train": [(12, 72), (96, 144)],
        "test": [(168, 204)],
    }


def test_only_periods_that_touch_are_joined() -> None:
    config = SplitConfig(train=(period(1, 1), period(4, 4), period(5, 5), period(7, 7)))
    assert split_periods(config, hourly(24 * 8), (0, 24 * 8), 8) == {"train": [(0, 24), (72, 120), (144, 168)]}


def test_a_period_within_another_one_of_its_split_adds_nothing() -> None:
    config = SplitConfig(train=(period(1, 4), period(2, 2)), test=(period(6, 6),))
    assert split_periods(config, hourly(24 * 8), (0, 24 * 8), 8) == {"train": [(0, 96)], "test": [(120, 144)]}


def test_splits_may_be_a_gap_apart_and_no_step_less() -> None:
    def split(gap: int) -> dict[str, list[tuple[int, int]]]:
        config = SplitConfig(train=(period(1, 1),), test=(period(3, 3),), gap=gap)
        return split_periods(config, hourly(96), (0, 96), 8)

    assert split(24) == {"train": [(0, 24)], "test": [(48, 72)]}
    with pytest.raises(ValueError, match="need a gap of 25 steps between them and have 24"):
        split(25)


def test_a_block_may_be_as_long_as_a_window_and_no_step_shorter() -> None:
    config = SplitConfig(validation_share=0.5, test_share=0, gap=8)
    assert split_periods(config, hourly(24), (0, 24), 8) == {"train": [(0, 8)], "validation": [(16, 24)]}
    with pytest.raises(ValueError, match=r"a block of .* would get 7 of 22 steps"):
        split_periods(config, hourly(22), (0, 22), 8)
    exact = SplitConfig(train=(period(1, 1),))
    assert split_periods(exact, hourly(24), (16, 24), 8) == {"train": [(16, 24)]}
    with pytest.raises(ValueError, match=r"holds 7 steps"):
        split_periods(exact, hourly(24), (17, 24), 8)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"train": (period(1, 3),), "validation": (period(3, 4),)},
            r"train \(2024-01-01 to 2024-01-03\) and validation \(2024-01-03 to .*\) need a gap of 8 steps .* -24",
        ),
        ({"train": (period(1, 3),), "test": (period(4, 5),)}, "need a gap of 8 steps between them and have 0"),
        ({"train": (period(1, 9),), "test": (period(2, 3),)}, "need a gap of 8 steps between them and have"),
        ({"train": (period(1, 2), period(20, 21))}, r"splits\.train: 2024-01-20 to 2024-01-21 holds 0 steps"),
        ({"cycles": 30}, "a block of train would get .* lower splits.cycles"),
    ],
)
def test_impossible_splits_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_periods(SplitConfig(**config), hourly(240), (0, 240), 8)


def spoiled(steps: int = 48) -> NDArray[np.float32]:
    """NaN of every kind: absent block, absent steps of one channel, coasts, whole cells, single points."""
    data = noise((steps, 2, 60, 96))
    data[16:24] = np.nan
    data[30, 1] = np.nan
    data[:, 1, 10:37, 20:64] = np.nan
    data[:, 0, 32:48, 0:16] = np.nan
    data[4:9, 0, ::7, ::5] = np.nan
    return data


def brute_force(
    data: NDArray[np.float32], grid: WindowGrid, limit: float, blocks: list[tuple[int, int]]
) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {"usable": [], "missing": [], "too_many_nan": []}
    steps, height, width = grid.shape
    gone = np.isnan(data).all(axis=(2, 3)).any(axis=1)
    for index in range(len(grid)):
        t, y, x = grid.origin(index)
        if not any(first <= t and t + steps <= stop for first, stop in blocks):
            continue
        box = data[t : t + steps, :, y : y + height][..., np.arange(x, x + width) % data.shape[3]]
        if gone[t : t + steps].any():
            found["missing"].append(index)
        elif (np.isnan(box).mean(axis=(0, 2, 3)) > limit).any():
            found["too_many_nan"].append(index)
        else:
            found["usable"].append(index)
    return found


@pytest.mark.parametrize("limit", [0.0, 0.05, 0.25, 0.5, 1.0])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"wrap_longitude": True, "cover_edges": True},
        {"height": 20, "width": 25, "stride_height": 7, "stride_width": 11, "stride_time": 3, "time": 5},
        {"height": 30, "width": 96, "wrap_longitude": True, "stride_width": 31, "stride_height": 9},
    ],
)
def test_usable_windows_are_exactly_those_of_brute_force(tmp_path: Path, limit: float, change: dict[str, Any]) -> None:
    data = spoiled()
    windows = WindowConfig(**{**SMALL.model_dump(), **change, "max_nan_share": limit})
    store = write_store(tmp_path, data, blocks_missing=(2,))
    splits = SplitConfig(validation_share=0.3, test_share=0.0, cycles=1)
    try:
        found = build_training_set(store, windows, splits)
    except ValueError as error:
        assert "No usable training windows" in str(error)  # noqa: PT017
        periods = split_periods(splits, store.time, (0, 48), windows.time)
        grid = grid_of(windows, 48, (60, 96))
        assert not brute_force(data, grid, limit, periods["train"])["usable"]
        return
    for name, blocks in found.splits.items():
        wanted = brute_force(data, found.grid, limit, [(b.first, b.stop) for b in blocks])
        for reason in ("usable", "missing", "too_many_nan"):
            assert sum(getattr(b, reason) for b in blocks) == len(wanted[reason]), (name, reason)
        assert found.length(name) == len(wanted["usable"])
        origins = [found.origin(name, i) for i in range(found.length(name))]
        assert origins == [found.grid.origin(i) for i in wanted["usable"]]
    counted = sum(b.usable + b.missing + b.too_many_nan for blocks in found.splits.values() for b in blocks)
    assert counted + found.outside == len(found.grid)


def test_ranges_far_apart_are_judged_and_nothing_between_them(tmp_path: Path) -> None:
    store = write_store(tmp_path, noise((200, 1, 16, 16)))
    grid = grid_of(WindowConfig(time=4, stride_time=1, height=16, width=16), 200, (16, 16))
    judged = judge_windows(store, grid, 1.0, [(0, 20), (120, 130)])
    assert np.flatnonzero(judged.usable).tolist() == [*range(20), *range(120, 130)]
    assert np.unpackbits(judged.packed, bitorder="little").sum() == 30


def test_statistics_are_those_of_the_training_steps(tmp_path: Path) -> None:
    data = spoiled()
    data[36:] += 1000
    store = write_store(tmp_path, data, blocks_missing=(2,))
    found = build_training_set(store, SMALL.model_copy(update={"max_nan_share": 1.0}), HALVES)
    steps = [t for block in found.splits["train"] for t in range(block.first, block.stop)]
    assert max(steps) < 36
    for c, statistics in enumerate(found.statistics):
        there = data[steps, c][~np.isnan(data[steps, c]).all(axis=(1, 2))].astype(np.float64)
        values = there[~np.isnan(there)]
        assert (statistics.channel, statistics.count) == (store.channels[c], values.size)
        assert (statistics.min, statistics.max) == (values.min(), values.max())
        np.testing.assert_allclose(
            [statistics.mean, statistics.std, statistics.nan_share],
            [values.mean(), values.std(), np.isnan(there).mean()],
            rtol=1e-10,
        )


def test_constant_and_empty_channels(tmp_path: Path) -> None:
    data = noise((24, 3, 32, 32))
    data[:, 1] = 7
    found = build_training_set(write_store(tmp_path / "a", data), SMALL, TRAIN_ONLY)
    assert found.warnings == ("channel v10 is 7 all over the training period; it becomes 0 when normalised",)
    mean, scale = normalisation(found.statistics)
    np.testing.assert_allclose(
        ((data - mean[:, None, None]) * scale[:, None, None]).std(axis=(0, 2, 3)), [1, 0, 1], rtol=1e-3
    )
    assert scale[1] == 1
    data[:20, 2] = np.nan
    store = write_store(tmp_path / "b", data)
    with pytest.raises(ValueError, match=r"No usable training windows: of 3, 3 cover a step at which .* is missing"):
        build_training_set(store, SMALL, SplitConfig(validation_share=0.4, test_share=0))
    empty = write_store_with_empty_channel(tmp_path / "c", data)
    with pytest.raises(ValueError, match=r"of 6, 0 cover .* and 6 have a channel with more NaN than .* \(0\)"):
        build_training_set(empty, SMALL, TRAIN_ONLY)
    with pytest.raises(ValueError, match="channel t@850 has no value in the training period"):
        build_training_set(empty, SMALL.model_copy(update={"max_nan_share": 1.0}), TRAIN_ONLY)


def test_infinite_values_are_refused(tmp_path: Path) -> None:
    data = noise((24, 2, 32, 32))
    data[5, 1, 3, 4] = np.inf
    store = write_store(tmp_path, data)
    with pytest.raises(ValueError, match="channel v10 has infinite values in the training period"):
        build_training_set(store, SMALL, TRAIN_ONLY)


def write_store_with_empty_channel(folder: Path, data: NDArray[np.float32]) -> WindowStore:
    """A store whose last channel is there at every step, and NaN all over."""
    shape = geometry(3, 32, 32)
    data[:, 2] = np.nan
    for block in range(3):
        with BlockWriter(folder, shape, block) as writer:
            writer.write_slab(0, data[8 * block : 8 * block + 4])
            writer.write_slab(4, data[8 * block + 4 : 8 * block + 8])
            marks = np.ones((8, 3))
            writer.finish(marks.astype(bool), marks.astype(np.uint8), marks.astype(np.uint64))
    write_metadata(folder, shape, hourly(24), {})
    return WindowStore.open(folder)


def test_a_training_set_survives_its_files(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", spoiled(), blocks_missing=(2,))
    built = build_training_set(store, SMALL.model_copy(update={"max_nan_share": 0.3}), HALVES)
    built.save(tmp_path / "set")
    loaded = TrainingSet.load(tmp_path / "set")
    assert loaded.model_dump() == built.model_dump()
    for split in built.splits:
        origins = [[s.origin(split, i) for i in range(s.length(split))] for s in (built, loaded)]
        assert origins[0] == origins[1]
    for split in ("train", "test"):
        for beyond in (-1, loaded.length(split)):
            with pytest.raises(IndexError, match=f"{split} has"):
                loaded.origin(split, beyond)
    with pytest.raises(ValueError, match="no split 'valid', only train, validation, test"):
        loaded.length("valid")


def test_samples_are_normalised_and_masked(tmp_path: Path) -> None:
    data = spoiled()
    windows = SMALL.model_copy(update={"max_nan_share": 1.0, "wrap_longitude": True, "anchor": "middle"})
    store = write_store(tmp_path, data, blocks_missing=(2,))
    built = build_training_set(store, windows, TRAIN_ONLY)
    built.save(tmp_path / "set")
    dataset = WindowDataset(tmp_path, tmp_path / "set", "train")
    assert len(dataset) == built.length("train")
    for index in range(0, len(dataset), 7):
        t, y, x = built.origin("train", index)
        columns = np.arange(x, x + 32) % 96
        raw = data[t : t + 4, :, y : y + 32][..., columns].transpose(1, 0, 2, 3)
        mean = np.array([s.mean for s in built.statistics])[:, None, None, None]
        std = np.array([s.std for s in built.statistics])[:, None, None, None]
        sample = dataset[index]
        np.testing.assert_array_equal(sample["valid"], ~np.isnan(raw))
        np.testing.assert_allclose(sample["data"], np.nan_to_num((raw - mean) / std), atol=2e-5)
        assert sample["time"] == hourly(48)[t + 2].astype(int)
        np.testing.assert_array_equal(sample["latitude"], store.latitude[y : y + 32].astype(np.float32))
        np.testing.assert_array_equal(sample["longitude"], store.longitude[columns].astype(np.float32))
        assert sample["index"] == index
    with pytest.raises(IndexError):
        dataset[len(dataset)]


@pytest.mark.parametrize("context", ["fork", "forkserver"])
def test_workers_deliver_what_the_main_process_does(tmp_path: Path, context: str) -> None:
    store = write_store(tmp_path, noise((24, 2, 60, 96)))
    build_training_set(store, SMALL, TRAIN_ONLY).save(tmp_path / "set")
    dataset = WindowDataset(tmp_path, tmp_path / "set", "train")
    sampler = KeyedBatchSampler(len(dataset), 8, seed=1)
    alone = list(DataLoader(dataset, batch_sampler=sampler))
    helped = list(DataLoader(dataset, batch_sampler=sampler, num_workers=1, multiprocessing_context=context))
    assert len(alone) == len(dataset) // 8
    torch.testing.assert_close(helped, alone, rtol=0, atol=0)


def test_folders_may_be_given_as_text(tmp_path: Path) -> None:
    store = write_store(tmp_path, noise((24, 2, 60, 96)))
    build_training_set(store, SMALL, TRAIN_ONLY).save(tmp_path / "set")
    told = WindowDataset(str(tmp_path), str(tmp_path / "set"), "train")
    (batch,) = DataLoader(told, batch_size=2, sampler=[3, 5], num_workers=1, multiprocessing_context="forkserver")
    dataset = WindowDataset(tmp_path, tmp_path / "set", "train")
    torch.testing.assert_close(batch["data"], torch.stack([dataset[3]["data"], dataset[5]["data"]]), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"nowhere is no window store: it has no zarr\.json; build the store first"):
        WindowDataset(str(tmp_path / "nowhere"), str(tmp_path / "set"), "train")


def test_a_training_set_of_another_store_is_refused(tmp_path: Path) -> None:
    built = build_training_set(write_store(tmp_path / "a", noise((24, 2, 32, 32))), SMALL, TRAIN_ONLY)
    built.save(tmp_path / "set")
    write_store(tmp_path / "b", noise((32, 2, 32, 32)))
    with pytest.raises(ValueError, match="was built for another store"):
        WindowDataset(tmp_path / "b", tmp_path / "set", "train")


def test_monthly_steps_are_steps(tmp_path: Path) -> None:
    shape, data = geometry(2, 32, 32), noise((24, 2, 32, 32))
    for block in range(3):
        write_block(tmp_path, shape, block, data[8 * block : 8 * block + 8])
    months = np.arange("2020-01", "2022-01", dtype="datetime64[M]")
    write_metadata(tmp_path, shape, months, {"cadence": "1 month"})
    store = WindowStore.open(tmp_path)
    windows = SMALL.model_copy(update={"time_start": date(2020, 2, 1), "time_end": date(2021, 6, 1), "stride_time": 1})
    found = build_training_set(
        store, windows, SplitConfig(train=(Period(start=date(2020, 3, 1), end=date(2020, 8, 1)),))
    )
    assert [(b.first, b.stop, b.usable) for b in found.splits["train"]] == [(2, 8, 3)]
    assert found.grid.time.count == 17 - 4 + 1
