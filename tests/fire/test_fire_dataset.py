"""Samples and batches: what they hold against the archive, turning, windows, ablations, padding."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from itertools import product

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from storage.assets import AssetStore
from storage.fire_split import FireSplit, Statistics
from storage.token_cache import TokenCache
from tasks.fire.dataset import FireDataset, FireSample, collate
from tasks.fire.turns import Turn
from tests.fire.archives import Fire, cache_of, everything_for_training, landscape, split_of, write_archive

FIRES = [
    Fire(1, (3, 54, 5, 70), (20, 30), 6),
    Fire(2, (25, 96, 8, 70), (50, 40), 3),
    Fire(3, (0, 37, 120, 160), (20, 140), 2),
    Fire(4, (10, 58, 60, 124), (33, 90), 5, growth=3),
]
TURNS = [Turn(*bits) for bits in product((False, True), repeat=3)]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    raw = write_archive(folder / "a", FIRES)
    store = AssetStore(folder / "assets")
    cache = cache_of(store, folder / "a", patch=8)
    split = split_of(store, cache, everything_for_training([1, 2, 3, 4]))
    return raw, cache.folder, split.folder


def dataset(built, part="train", **options) -> FireDataset:
    return FireDataset(built[1], built[2], part, **{"history": 8, **options})


def test_samples_are_every_step_of_every_fire_in_order(built):
    data = dataset(built)
    assert data.samples == [(i, t) for i, fire in enumerate(FIRES) for t in range(fire.steps - 1)]
    assert len(data) == len(data.samples) == 5 + 2 + 1 + 4
    assert dataset(built, "all").samples == data.samples
    assert len(dataset(built, "test")) == 0


def test_pixels_are_those_of_the_archive(built):
    raw, data = built[0], dataset(built)
    statistics = {band.name: band for band in data.statistics.bands}
    for index, (fire, step) in enumerate(data.samples):
        facts, sample = FIRES[fire], data.sample(index, 0)
        y0, y1, x0, x1 = facts.box
        frames = raw.frames[facts.number]
        np.testing.assert_array_equal(sample.age > 0, frames[step])
        np.testing.assert_array_equal(sample.age, frames[: step + 1].sum(axis=0))
        np.testing.assert_array_equal(sample.target, frames[step + 1])
        domain = raw.valid["fuels"][y0:y1, x0:x1]
        np.testing.assert_array_equal(sample.domain, domain)
        for name in ("cbd", "elevation"):
            known = raw.valid[name][y0:y1, x0:x1] & domain
            band = data.spec.continuous.index(name)
            np.testing.assert_array_equal(sample.terrain_valid[band], known)
            expected = (raw.bands[name][y0:y1, x0:x1] - statistics[name].mean) / statistics[name].std
            np.testing.assert_allclose(sample.terrain[band], np.where(known, expected, 0), atol=1e-4)
        codes = data.statistics.classes[0].codes
        fuels = raw.bands["fuels"][y0:y1, x0:x1]
        for number, code in enumerate(codes, 1):
            np.testing.assert_array_equal(sample.classes[0] == number, fuels == code)
        assert (sample.classes[0][~domain] == 0).all()


def test_history_ends_with_the_last_frame_and_its_wind_drives_the_step(built):
    raw, short, whole = built[0], dataset(built, history=2), dataset(built, history=8)
    index = whole.samples.index((0, 4))
    a, b = short.sample(index, 0), whole.sample(index, 0)
    assert (len(a.wind), len(b.wind)) == (2, 5)
    np.testing.assert_array_equal(a.fire, b.fire[-2:])
    np.testing.assert_array_equal(a.age, np.minimum(b.age, 2))
    speed = b.wind[:, 0] * whole.spec.wind_scale[1] + whole.spec.wind_scale[0]
    np.testing.assert_allclose(speed, [ws for ws, _ in raw.winds[1]], rtol=1e-5)
    one = dataset(built, history=1).sample(index, 0)
    np.testing.assert_array_equal(one.age, b.age > 0)


def pooled(sample: FireSample, pixels: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Average pixels with a weight over the tokens of a sample, 0 where there is none."""
    rows, columns = sample.grid
    padded = np.zeros((2, rows * sample.patch, columns * sample.patch))
    (top, left), (high, wide) = sample.offset, pixels.shape
    padded[:, top : top + high, left : left + wide] = pixels * weight, weight
    total, count = padded.reshape(2, rows, sample.patch, columns, sample.patch).sum(axis=(2, 4))
    return (total / np.maximum(count, 1)).ravel()


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_turning_commutes_with_pooling_and_turns_vectors(built, monkeypatch, turn):
    """Every turned sample is consistent in itself: its tokens are the pooled tokens of its own pixels."""
    plain, data = dataset(built), dataset(built, augment=True)
    monkeypatch.setattr(Turn, "draw", classmethod(lambda cls, random: turn))
    names = data.spec.continuous
    for index in range(len(data)):
        before, sample = plain.sample(index, 0), data.sample(index, 0)
        np.testing.assert_allclose(
            pooled(sample, sample.age > 0, sample.domain), sample.fire[-1], atol=5e-4
        )  # fmt: skip
        assert np.array_equal(pooled(sample, sample.domain, sample.domain) > 0, sample.token_valid)
        np.testing.assert_array_equal(sample.age, turn.map(before.age))
        for name in names:
            band = names.index(name)
            valid = sample.terrain_valid[band]
            mean = pooled(sample, np.asarray(sample.terrain[band]), valid)
            inside = np.isin(sample.token_valid, True) & (pooled(sample, ~sample.domain, np.ones(valid.shape)) == 0)
            np.testing.assert_allclose(mean[inside], sample.static[inside, band], atol=2e-3, err_msg=name)
            share = pooled(sample, valid, np.ones(valid.shape))
            whole = inside & (sample.static[:, len(names) + band] > 0)
            np.testing.assert_allclose(share[whole] > 0, True)
        assert_slopes_are_gradients(sample, data)
        downhill = [wind_against_slope(s, names) for s in (before, sample)]
        np.testing.assert_allclose(downhill[0].sum(), downhill[1].sum(), rtol=1e-3, atol=1e-2)


def assert_slopes_are_gradients(sample: FireSample, data: FireDataset) -> None:
    """The slopes of a sample are the gradients of its own elevation on its own map."""
    names = data.spec.continuous
    east, north, height = (names.index(n) for n in ("slope_east", "slope_north", "elevation"))
    scale = {band.name: band.std for band in data.statistics.bands}
    metres = np.asarray(sample.terrain[height]) * scale["elevation"]
    known = sample.terrain_valid[height]
    whole = known[:, 2:] & known[:, 1:-1] & known[:, :-2]
    rise = (metres[:, 2:] - metres[:, :-2]) / (2 * data.spec.cell_metres)
    np.testing.assert_allclose(
        np.asarray(sample.terrain[east])[:, 1:-1][whole] * scale["slope_east"], rise[whole], atol=1e-3
    )
    whole = known[2:] & known[1:-1] & known[:-2]
    rise = (metres[:-2] - metres[2:]) / (2 * data.spec.cell_metres)
    np.testing.assert_allclose(
        np.asarray(sample.terrain[north])[1:-1][whole] * scale["slope_north"], rise[whole], atol=1e-3
    )


def wind_against_slope(sample: FireSample, names: tuple[str, ...]) -> np.ndarray:
    """The product of wind and slope, which no turn of the map may change."""
    east, north = (np.asarray(sample.terrain[names.index(n)]) for n in ("slope_east", "slope_north"))
    return sample.wind[-1, 1] * east + sample.wind[-1, 2] * north


def test_eight_turns_are_eight_and_all_are_drawn():
    picture = np.arange(6).reshape(2, 3)
    assert len({turn.map(picture).tobytes() + str(turn.map(picture).shape).encode() for turn in TURNS}) == 8
    drawn = Counter(Turn.draw(np.random.default_rng(seed)) for seed in range(1600))
    assert set(drawn) == set(TURNS)
    assert min(drawn.values()) > 150, "each as often as any other: 200 times, give or take 13"


def test_windows_are_token_aligned_hold_the_front_and_come_from_the_seed(built):
    data, whole = dataset(built, window_tokens=3), dataset(built)
    for index in range(len(data)):
        big = whole.sample(index, 0)
        seen = set()
        for seed in range(12):
            sample = data.sample(index, seed)
            again = data.sample(index, seed)
            assert all(np.array_equal(getattr(sample, f), getattr(again, f)) for f in ("age", "fire", "static"))
            assert max(sample.grid) <= 3
            assert (sample.fire[-1] > 0).any(), "part of the fire is in sight"
            assert (sample.age > 0).any()
            y, x = find(big, sample)
            seen.add((y, x))
            tokens = big.fire.reshape(-1, *big.grid)[:, y : y + sample.grid[0], x : x + sample.grid[1]]
            np.testing.assert_array_equal(sample.fire, tokens.reshape(len(tokens), -1))
        assert len(seen) > 1


def find(big: FireSample, sample: FireSample) -> tuple[int, int]:
    """Return the only token at which a window fits into the whole sample."""
    rows, columns = sample.grid
    static = big.static.reshape(*big.grid, -1)
    places = [
        (y, x)
        for y in range(big.grid[0] - rows + 1)
        for x in range(big.grid[1] - columns + 1)
        if np.array_equal(static[y : y + rows, x : x + columns].reshape(rows * columns, -1), sample.static)
    ]
    assert len(places) == 1
    return places[0]


def test_ablations_blank_their_channels_and_keep_the_domain(built):
    full = collate([dataset(built).sample(i, 0) for i in range(4)])
    calm = collate([dataset(built, wind=False).sample(i, 0) for i in range(4)])
    flat = collate([dataset(built, static=False).sample(i, 0) for i in range(4)])
    assert not calm.wind.any()
    assert not calm.wind_valid.any()
    torch.testing.assert_close(calm.terrain, full.terrain)
    for name in ("static", "terrain", "terrain_valid", "classes"):
        assert not getattr(flat, name).any()
        assert getattr(flat, name).shape == getattr(full, name).shape
    for name in ("domain", "token_valid", "wind", "fire"):
        torch.testing.assert_close(getattr(flat, name), getattr(full, name))


def test_batches_pad_with_zeros_time_left_and_space_bottom_right(built):
    data = dataset(built)
    alone = [collate([data.sample(i, 0)]) for i in range(len(data))]
    together = collate([data.sample(i, 0) for i in range(len(data))])
    gy, gx = together.grid
    assert together.domain.shape == (len(data), gy * 8, gx * 8)
    assert together.time_valid[:, -1].all()
    for i, one in enumerate(alone):
        frames, (rows, columns), (_, height, width) = one.fire.shape[1], one.grid, one.domain.shape
        for name in ("age", "terrain", "terrain_valid", "classes", "domain", "target"):
            both = getattr(together, name)[i].clone()
            torch.testing.assert_close(both[..., :height, :width], getattr(one, name)[0])
            both[..., :height, :width] = 0
            assert not both.any(), name
        for name in ("time_valid", "wind", "wind_valid"):
            both = getattr(together, name)[i]
            torch.testing.assert_close(both[-frames:], getattr(one, name)[0])
            assert not both[:-frames].any()
        fire = together.fire[i].reshape(-1, gy, gx)
        torch.testing.assert_close(fire[-frames:, :rows, :columns].reshape(frames, -1), one.fire[0])
        assert fire.count_nonzero() == one.fire.count_nonzero()
        static = together.static[i].reshape(gy, gx, -1)
        torch.testing.assert_close(static[:rows, :columns].reshape(rows * columns, -1), one.static[0])
        assert static.count_nonzero() == one.static.count_nonzero()
    assert (together.terrain[~together.terrain_valid] == 0).all()
    assert not (together.terrain_valid & ~together.domain[:, None]).any()
    assert not (together.target & ~together.domain).any()
    assert (together.static[~together.token_valid] == 0).all()


def test_statistics_are_of_training_fires_and_unseen_codes_become_class_zero(built, tmp_path):
    raw, cache, _ = built
    store = AssetStore(tmp_path)
    from storage.assets import Asset

    splits = everything_for_training([3]).model_copy(update={"validation": (1,)})
    folder = split_of(store, Asset(cache), splits).folder
    data = FireDataset(cache, folder, "validation", history=4)
    y0, y1, x0, x1 = FIRES[2].box
    domain = raw.valid["fuels"][y0:y1, x0:x1]
    band = raw.bands["elevation"][y0:y1, x0:x1][domain & raw.valid["elevation"][y0:y1, x0:x1]]
    found = {b.name: b for b in data.statistics.bands}
    assert found["elevation"].mean == pytest.approx(band.mean(), rel=1e-5)
    assert found["elevation"].std == pytest.approx(band.std(), rel=1e-4)
    assert data.statistics.wind.mean == pytest.approx(np.mean([ws for ws, _ in raw.winds[3]]))
    seen = set(np.unique(raw.bands["fuels"][y0:y1, x0:x1][domain]))
    assert set(data.statistics.classes[0].codes) == seen
    assert data.spec.categorical == (("fuels", 1 + len(seen)),)
    sample = data.sample(0, 0)
    y0, y1, x0, x1 = FIRES[0].box
    unseen = ~np.isin(raw.bands["fuels"][y0:y1, x0:x1], list(seen))
    assert (sample.classes[0][unseen] == 0).all()
    assert sample.classes.max() <= len(seen)


def test_an_archive_without_a_code_of_the_training_has_none_of_it(built, tmp_path):
    raw, cache, split = built
    for name, code in (("fewer", 102), ("more", 33)):
        fuels = np.where(raw.bands["fuels"] == 101, np.float32(code), raw.bands["fuels"])
        write_archive(tmp_path / name, FIRES, raw.bands | {"fuels": fuels})
    statistics = Statistics.load(split)
    own = FireDataset(cache, statistics, "all", history=4)
    lost = own.spec.static - len(statistics.classes[0].codes) + statistics.classes[0].codes.index(101)
    for name in ("fewer", "more"):
        other = cache_of(AssetStore(tmp_path / "assets"), tmp_path / name, patch=8)
        found = FireDataset(other.folder, statistics, "all", history=4)
        assert found.spec == own.spec
        theirs, ours = (data.sample(0, 0).static for data in (found, own))
        assert ours[:, lost].any()
        assert not theirs[:, lost].any()
        changed = [lost, lost + 1] if name == "fewer" else [lost]
        np.testing.assert_array_equal(*(np.delete(static, changed, axis=1) for static in (theirs, ours)))


def test_workers_give_what_the_main_process_gives(built):
    data = dataset(built, augment=True, window_tokens=4)

    class Indexed(torch.utils.data.Dataset):
        def __len__(self):
            return len(data)

        def __getitem__(self, index):
            return data.sample(index, 7 * index)

    batches = list(DataLoader(Indexed(), batch_size=4, collate_fn=collate, num_workers=2))
    for number, batch in enumerate(batches):
        expected = collate([data.sample(i, 7 * i) for i in range(4 * number, min(4 * number + 4, len(data)))])
        for field in fields(expected):
            if field.name != "grid":
                torch.testing.assert_close(getattr(batch, field.name), getattr(expected, field.name))


def test_a_split_of_another_cache_is_refused(built, store, tmp_path):
    write_archive(tmp_path / "b", FIRES[:2])
    other = cache_of(store, tmp_path / "b")
    with pytest.raises(ValueError, match="was made for another cache"):
        FireDataset(other.folder, built[2], "train", history=4)


def test_a_sample_has_its_place_and_burnable_pixels(built):
    data = dataset(built)
    cache = TokenCache.open(built[1])
    for index, (fire, _) in enumerate(data.samples):
        y0, y1, x0, x1 = data.place(index)
        assert (y0, y1, x0, x1) == FIRES[fire].box
        burnable = collate([data.sample(index, 0)]).burnable[0].numpy()
        np.testing.assert_array_equal(burnable[: y1 - y0, : x1 - x0], cache.burnable[y0:y1, x0:x1])
        assert burnable.sum() == cache.burnable[y0:y1, x0:x1].sum()
    assert Statistics.load(built[2]).bands
    assert FireSplit.load(built[2]).part("train")


@pytest.mark.long
def test_real_samples_have_no_surprises(real_cache, tmp_path):
    from configs.fire_data import FireSplits

    split = split_of(AssetStore(tmp_path), real_cache, FireSplits())
    data = FireDataset(real_cache.folder, split.folder, "train", history=6, window_tokens=8, augment=True)
    for index in range(0, len(data), 29):
        batch = collate([data.sample(index, 3), data.sample((index + 7) % len(data), 4)])
        assert torch.isfinite(batch.terrain).all()
        assert torch.isfinite(batch.static).all()
        assert not (batch.burnt & ~batch.target & batch.domain).any(), "targets cover the last frame"
        assert not (batch.burnt & ~batch.domain).any()
        assert batch.domain.shape[1:] == tuple(8 * 16 if g == 8 else g * 16 for g in batch.grid)
        assert batch.terrain.abs().max() < 60


def test_an_archive_without_elevation_has_no_slopes_and_still_turns(store, tmp_path):
    bands = {name: band for name, band in landscape().items() if name != "elevation"}
    write_archive(tmp_path / "a", FIRES, bands)
    cache = cache_of(store, tmp_path / "a")
    split = split_of(store, cache, everything_for_training([1, 2, 3, 4]))
    data = FireDataset(cache.folder, split.folder, "train", history=4, augment=True)
    assert data.spec.continuous == ("cbd",)
    assert collate([data.sample(i, i) for i in range(len(data))]).terrain.shape[1] == 1


def test_pixels_nearer_to_fire_out_of_sight_do_not_count(built):
    """Training windows: a brute-force search for the nearest burnt pixel of the whole crop."""
    whole, windows = dataset(built), dataset(built, window_tokens=1)
    cache, left_out = TokenCache.open(built[1]), 0
    for index, (fire, step) in enumerate(windows.samples):
        assert (s := whole.sample(index, 0)).counted.sum() == s.domain.sum()
        sample = windows.sample(index, seed=index)
        burnt = np.argwhere(cache.frames(fire)[step])
        terrain = whole.sample(index, 0).terrain[0]
        (top, left) = _find(terrain, sample.terrain[0])
        height, width = sample.age.shape
        inside = ((burnt >= (top, left)) & (burnt < (top + height, left + width))).all(1)
        for row, column in np.argwhere(sample.domain):
            distance = ((burnt - (top + row, left + column)) ** 2).sum(1)
            nearest_inside = distance[inside].min()
            nearest_outside = distance[~inside].min(initial=1 << 40)
            if nearest_inside != nearest_outside:
                assert sample.counted[row, column] == (nearest_inside < nearest_outside)
                left_out += not sample.counted[row, column]
    assert left_out > 0


def _find(whole, part):
    """Return the one place at which a window lies in a picture."""
    height, width = part.shape
    views = np.lib.stride_tricks.sliding_window_view(whole, (height, width))
    (place,) = np.argwhere((views == part).all((2, 3)))
    return place
