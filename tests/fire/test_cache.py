"""The token cache: pooling against plain numpy, slopes, and what must not depend on hidden values."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from configs.fire_data import Decoding
from storage.assets import AssetStore
from storage.token_cache import TokenCache
from tasks.fire.landscape import read_landscape, slope
from tests.fire.archives import CELL, Fire, cache_of, landscape, write_archive, write_landscape

FIRES = [
    Fire(1, (3, 44, 5, 58), (20, 30), 5),
    Fire(2, (25, 96, 8, 60), (50, 40), 3),
    Fire(3, (0, 37, 120, 160), (20, 140), 2),
]


@pytest.fixture(scope="module", params=[16, 8, 4])
def pooled(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pooled")
    raw = write_archive(folder / "a", FIRES)
    return raw, TokenCache.open(cache_of(AssetStore(folder / "assets"), folder / "a", patch=request.param).folder)


def reference(band, valid, box, patch):
    """Means, valid shares and the pixels of every token, one token after another in plain Python."""
    y0, y1, x0, x1 = box
    mean, share, inside = [], [], []
    for y in range(y0, y1, patch):
        for x in range(x0, x1, patch):
            piece = np.s_[y : min(y + patch, y1), x : min(x + patch, x1)]
            known = band[piece][valid[piece]].astype(np.float64)
            mean.append(known.mean() if known.size else 0.0)
            share.append(known.size / patch**2)
            inside.append(piece)
    return np.array(mean), np.array(share), inside


def test_pooling_is_the_plain_mean_over_valid_pixels(pooled):
    raw, cache = pooled
    for i, fire in enumerate(FIRES):
        tokens = cache.static(i)
        for name in ("cbd", "elevation"):
            column = cache.continuous.index(name)
            mean, share, _ = reference(raw.bands[name], raw.valid[name], fire.box, cache.patch)
            np.testing.assert_allclose(tokens.mean[:, column], mean, rtol=1e-6)
            np.testing.assert_array_equal(tokens.share[:, column], share)
    assert (cache.static(0).share == 0).any() or cache.patch > 4, "some token of fire 1 has no valid pixel"


def test_classes_domain_footprint_and_fire_are_counted_over_the_right_pixels(pooled):
    raw, cache = pooled
    fuels, valid = raw.bands["fuels"], raw.valid["fuels"]
    (name, codes), *_ = cache.categorical
    assert name == "fuels"
    for i, fire in enumerate(FIRES):
        tokens, share = cache.static(i), cache.fire_share(i)
        _, known, pieces = reference(fuels, valid, fire.box, cache.patch)
        np.testing.assert_array_equal(tokens.domain_share, known)
        np.testing.assert_array_equal(tokens.class_share[:, 0], known)
        burnt = np.zeros((fire.steps, *fuels.shape), bool)
        burnt[:, fire.box[0] : fire.box[1], fire.box[2] : fire.box[3]] = raw.frames[fire.number]
        for token, piece in enumerate(pieces):
            domain = valid[piece]
            assert tokens.footprint[token] == domain.size / cache.patch**2
            histogram = [(fuels[piece][domain] == code).sum() / max(domain.sum(), 1) for code in codes]
            np.testing.assert_allclose(tokens.histogram[token], histogram, atol=5e-4)
            expected = burnt[:, *piece].sum(axis=(1, 2)) / max(domain.sum(), 1)
            np.testing.assert_allclose(share[:, token], expected, atol=5e-4)


def test_padding_is_stored_and_adds_up(pooled):
    _, cache = pooled
    for crop, bottom, right in zip(
        cache.crops, cache.array("seq/pad_bottom"), cache.array("seq/pad_right"), strict=True
    ):
        assert crop.rows * cache.patch == crop.height + bottom
        assert crop.columns * cache.patch == crop.width + right
        assert 0 <= bottom < cache.patch
        assert 0 <= right < cache.patch
    assert cache.attributes["cell_metres"] == CELL
    assert cache.transform[0] == CELL
    assert "25831" in cache.crs


def test_nothing_depends_on_the_value_under_nodata(store, tmp_path):
    bands = landscape()
    write_archive(tmp_path / "a", FIRES, bands)
    write_archive(tmp_path / "b", FIRES, bands, under_nodata=np.nan)
    write_archive(tmp_path / "c", FIRES, bands, nodata=12345.0)
    caches = [cache_of(store, tmp_path / name) for name in "abc"]
    assert len({cache.fingerprint for cache in caches}) == 1


def test_a_plane_has_its_slope_everywhere_its_neighbours_allow():
    rows, columns = np.indices((12, 15))
    plane = (100 + 3.0 * columns * 20 - 2.0 * rows * 20).astype(np.float32)
    valid = np.ones(plane.shape, bool)
    valid[5, 4:7] = False
    valid[:, 10] = False
    valid[:, 12] = False
    hidden = np.where(valid, plane, -9999).astype(np.float32)
    east, known = slope(hidden, valid, 20.0)
    np.testing.assert_allclose(east[known], 3.0, rtol=1e-5)
    assert not known[:, 10:13].any(), "column 11 has no valid neighbour in its row"
    assert known[:, 0].all(), "one-sided at an edge"
    assert known[5, 3]
    assert (east[~known] == 0).all()


def test_slopes_point_east_and_north(tmp_path):
    rows, columns = np.indices((20, 30))
    bands = {"fuels": np.full((20, 30), 101, np.float32), "elevation": (2.0 * columns - 6.0 * rows).astype(np.float32)}
    write_landscape(tmp_path, bands, -9999.0, None, "float32")
    land = read_landscape(tmp_path / "landscape/Input_Geotiff.tif", Decoding())
    by_name = dict(zip(land.continuous, land.values, strict=True))
    np.testing.assert_allclose(by_name["slope_east"], 2.0 / CELL, rtol=1e-5)
    np.testing.assert_allclose(by_name["slope_north"], 6.0 / CELL, rtol=1e-5)  # rows run south


@pytest.mark.parametrize(
    ("transform", "crs", "words"),
    [
        (rasterio.Affine(20, 5, 0, 5, -20, 0), "EPSG:25831", "not north-up"),
        (from_origin(0, 0, 20, 30), "EPSG:25831", "20 by 30 metres"),
        (from_origin(2, 60, 0.001, 0.001), "EPSG:4326", "gdalwarp -t_srs"),
        (None, None, "set decoding.cell_metres"),
    ],
)
def test_a_place_that_would_bend_slopes_or_wind_is_refused(tmp_path, transform, crs, words):
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "count": 1, "dtype": "int16", "height": 9, "width": 9}
    with rasterio.open(path, "w", **profile, crs=crs, **({"transform": transform} if transform else {})) as file:
        file.write(np.ones((1, 9, 9), np.int16))
        file.set_band_description(1, "fuels")
    with pytest.raises(ValueError, match=words):
        read_landscape(path, Decoding())


def test_codes_that_are_no_codes_are_refused(tmp_path):
    bands = {"fuels": np.random.default_rng(0).random((40, 40)).astype(np.float32)}
    write_landscape(tmp_path, bands, -9999.0, None, "float32")
    with pytest.raises(ValueError, match="band fuels is declared categorical but has 1600 different values"):
        read_landscape(tmp_path / "landscape/Input_Geotiff.tif", Decoding())


def test_unburnable_codes_reach_the_cache_and_the_map(store, tmp_path):
    raw = write_archive(tmp_path / "a", FIRES)
    cache = TokenCache.open(cache_of(store, tmp_path / "a").folder)
    np.testing.assert_array_equal(cache.burnable, raw.valid["fuels"] & ~np.isin(raw.bands["fuels"], [0, 91]))
    other = TokenCache.open(cache_of(store, tmp_path / "a", decoding=Decoding(unburnable=(101,))).folder)
    np.testing.assert_array_equal(other.burnable, raw.valid["fuels"] & (raw.bands["fuels"] != 101))


def test_equal_weathers_are_found_by_content(store, tmp_path):
    same = [(5.0, 10.0), (6.0, 20.0)]
    fires = [
        Fire(n, (10, 50, 20 * n, 20 * n + 40), (30, 20 * n + 20), 3, wind)
        for n, wind in ((1, same), (2, None), (3, same))
    ]
    write_archive(tmp_path / "a", fires)
    numbers = TokenCache.open(cache_of(store, tmp_path / "a").folder).array("seq/weather")
    assert numbers[0] == numbers[2] != numbers[1]


def test_a_folder_that_is_no_cache_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="is no token cache"):
        TokenCache.open(tmp_path)


@pytest.mark.long
def test_the_real_archive_comes_through_whole(real_cache, fire_data):
    truth = {f["seq"]: f for f in json.loads((fire_data / "zona60" / "sequences.json").read_text())}
    cache = TokenCache.open(real_cache.folder)
    assert len(cache) == len(truth) == 320
    for fire in range(0, 320, 16):
        facts = truth[int(cache.array("seq/number")[fire])]
        crop = cache.crops[fire]
        assert [crop.y0, crop.y0 + crop.height, crop.x0, crop.x0 + crop.width] == facts["crop"]
        assert cache.frames(fire).sum(axis=(1, 2)).tolist() == facts["burnt"]
        assert [int(cache.target(fire, t).sum()) for t in range(facts["T"])] == facts["iso_burnt"]
        assert cache.wind(fire)[1].sum() == facts["rows"]
        domain = cache.domain(fire)
        assert not (cache.frames(fire)[-1] & ~domain).any()
        tokens = cache.static(fire)
        assert tokens.domain_share.sum() * cache.patch**2 == pytest.approx(domain.sum())
