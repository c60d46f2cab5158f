"""Splits: parts by blocks, groups and lists, and a checker that finds every leak."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from pydantic import ValidationError

from configs.fire_data import FireSplits
from storage.assets import AssetStore
from storage.fire_split import PARTS, FireSplit, Rules, Statistics
from storage.token_cache import TokenCache
from tasks.fire.dataset import FireDataset
from tasks.fire.leaks import areas, burnt_map, check_split, find_leaks, overlaps, region_box, weather_conflicts
from tasks.fire.parts import fire_groups, ignitions
from tasks.progress import Silent
from tests.fire.archives import CODES, Fire, cache_of, everything_for_training, landscape, split_of, write_archive

SERIES = [(float(ws), float(wd)) for ws, wd in zip(range(3, 43), range(0, 400, 10), strict=True)]


def fire(number: int, column: int, first: int, steps: int = 4, width: int = 36, row: int = 40) -> Fire:
    """A fire at a column, with wind rows of one series from `first` on."""
    x0 = max(0, column - width // 2)
    return Fire(number, (row - 20, row + 21, x0, x0 + width), (row, column), steps, SERIES[first : first + steps - 1])


APART = [fire(n, 20 + 60 * n, 4 * n, width=36) for n in range(1, 7)]
"""Six fires that share nothing."""
CROWD = [fire(n, 40 + 15 * n, n % 5 * 4) for n in range(1, 21)]
"""Twenty fires whose crops overlap their neighbours', in five weathers."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return AssetStore(tmp_path_factory.mktemp("split"))


@pytest.fixture(scope="module")
def caches(store, tmp_path_factory):
    made = {}
    for name, fires in (("apart", APART), ("crowd", CROWD)):
        folder = tmp_path_factory.mktemp(name)
        bands = {k: np.nan_to_num(v, nan=101.0) for k, v in landscape((96, 430)).items()}
        write_archive(folder, fires, bands)
        made[name] = cache_of(store, folder, patch=8)
    return made


def split_for(store, cache, **options) -> tuple[TokenCache, FireSplit]:
    asset = split_of(store, cache, FireSplits(**options))
    return TokenCache.open(cache.folder), FireSplit.load(asset.folder)


def boxes(cache, split, part):
    return [region_box(cache, entry) for entry in split.part(part)]


def pixels(cache: TokenCache, boxes) -> np.ndarray:
    covered = np.zeros(cache.array("landscape/classes").shape[1:], bool)
    for y0, y1, x0, x1 in boxes:
        covered[y0:y1, x0:x1] = True
    return covered


def test_cut_blocks_share_no_pixel_and_no_weather(store, caches):
    cache, split = split_for(store, caches["crowd"], validation_share=0.25, test_share=0.3)
    covered = [pixels(cache, boxes(cache, split, part)) for part in PARTS]
    assert all(mask.any() for mask in covered)
    assert sum(mask.astype(int) for mask in covered).max() == 1
    weather = cache.array("seq/weather")
    of_part = [{int(weather[e.fire]) for e in split.part(part)} for part in PARTS]
    assert not of_part[0] & of_part[1] | of_part[0] & of_part[2] | of_part[1] & of_part[2]
    assert all(entry.reason for entry in split.fires if entry.part is None)
    columns = [[e.fire for e in split.part(part)] for part in PARTS]
    assert max(columns[0]) < min(columns[1]) <= max(columns[1]) < min(columns[2]), "west to east"


def test_cut_samples_show_only_their_side_of_the_border(store, caches):
    asset = split_of(store, caches["crowd"], FireSplits(validation_share=0.25, test_share=0.3, weather="none"))
    cache, split = TokenCache.open(caches["crowd"].folder), FireSplit.load(asset.folder)
    cut = [e for e in split.part("train") if e.region[3] < cache.crops[e.fire].columns]
    assert cut, "some training crop reaches over the border"
    data = FireDataset(caches["crowd"].folder, asset.folder, "train", history=4)
    index = data.samples.index((cut[0].fire, 2))
    sample = data.sample(index, 0)
    gy0, gy1, gx0, gx1 = cut[0].region
    assert sample.grid == (gy1 - gy0, gx1 - gx0)
    crop = cache.crops[cut[0].fire]
    assert sample.domain.shape == (crop.height, gx1 * 8)
    np.testing.assert_array_equal(sample.age > 0, cache.frames(cut[0].fire)[2][:, : gx1 * 8])
    assert data.place(index) == region_box(cache, cut[0])


@pytest.mark.parametrize("keep_apart", ["crop", "burnt"])
def test_blocks_that_leave_fires_out_keep_parts_apart(store, caches, keep_apart):
    cache, split = split_for(
        store, caches["crowd"], keep_apart=keep_apart, weather="none", validation_share=0.3, test_share=0.3
    )
    whole = [(0, c.rows, 0, c.columns) for c in cache.crops]
    assert all(e.region == whole[e.fire] for e in split.fires)
    for earlier, later in (("train", "validation"), ("train", "test"), ("validation", "test")):
        for a in split.part(earlier):
            for b in split.part(later):
                theirs = np.zeros(cache.array("landscape/classes").shape[1:], bool)
                crop = cache.crops[b.fire]
                theirs[crop.pixels] = True if keep_apart == "crop" else cache.frames(b.fire)[-1]
                assert not theirs[cache.crops[a.fire].pixels].any()
    left_out = Counter(e.reason for e in split.fires if e.part is None)
    assert left_out
    assert all("of a later part" in reason for reason in left_out)


def test_rows_of_one_series_are_recognised_across_files(store, tmp_path):
    fires = [
        fire(1, 60, 0, steps=6), fire(2, 120, 3, steps=6), fire(3, 180, 2, steps=4), fire(4, 240, 4, steps=2),
        fire(5, 300, 20, steps=3), fire(6, 360, 6, steps=6),
    ]  # fmt: skip
    bands = {k: np.nan_to_num(v, nan=101.0) for k, v in landscape((96, 430)).items()}
    write_archive(tmp_path / "a", fires, bands)
    cache = cache_of(store, tmp_path / "a", patch=8)
    conflicts = weather_conflicts(TokenCache.open(cache.folder))
    # rows 0-4, 3-7, 2-4, 4, 20-21, 6-10: runs of three, or the whole of a shorter one, count
    assert conflicts == {0: {2, 3}, 1: {3}, 2: {0, 3}, 3: {0, 1, 2}, 4: set(), 5: set()}
    opened, split = split_for(store, cache, weather="rows", validation_share=0.34, test_share=0.33)
    assert find_leaks(opened, split) == []
    assert {e.name for e in split.fires if e.part is None}, "some fire had to go"
    loose = split_for(store, cache, weather="file", validation_share=0.34, test_share=0.33)[1]
    strict = loose.model_copy(update={"rules": loose.rules.model_copy(update={"weather": "rows"})})
    with pytest.raises(ValueError, match="share weather rows"):
        check_split(opened, strict)


def test_groups_stay_together(store, caches):
    cache, split = split_for(store, caches["apart"], method="groups", validation_share=0.2, test_share=0.2)
    assert {part: len(split.part(part)) for part in PARTS} == {"train": 4, "validation": 1, "test": 1}
    assert find_leaks(cache, split) == []
    other = split_for(store, caches["apart"], method="groups", validation_share=0.2, test_share=0.2, seed=3)[1]
    assert [e.part for e in other.fires] != [e.part for e in split.fires]


def test_groups_that_are_one_crowd_say_how_large_it_is_and_what_to_do(store, caches):
    with pytest.raises(ValueError, match=r"holds 100% of all 20 fires.*splits.method=blocks"):
        split_for(store, caches["crowd"], method="groups")


def test_lists_are_taken_as_given_and_checked(store, caches):
    lists = {"training": (1, 2, 3), "validation": (5,), "test": (6,), "method": "lists"}
    _, split = split_for(store, caches["apart"], **lists, keep_apart="crop")
    assert [e.part for e in split.fires] == ["train", "train", "train", None, "validation", "test"]
    assert split.fires[3].reason == "it is in no list"
    with pytest.raises(ValueError, match=r"the split leaks: sequence_001 \(train\) and sequence_002 .* share pixels"):
        split_for(store, caches["crowd"], method="lists", training=(1,), test=(2,), keep_apart="crop")
    with pytest.raises(ValueError, match="share weather rows"):
        split_for(store, caches["crowd"], method="lists", training=(1,), test=(6,), keep_apart="crop")
    with pytest.raises(ValueError, match="there is no fire 99"):
        split_for(store, caches["apart"], method="lists", training=(99,), keep_apart="crop")


@pytest.mark.parametrize("pixels", ["cut", "crop", "burnt", "overlap"])
def test_the_checker_finds_a_leak_that_was_put_in(store, caches, pixels):
    cache = TokenCache.open(caches["crowd"].folder)
    _, split = split_for(store, caches["crowd"], validation_share=0.3, test_share=0.3, weather="none")
    moved = split.part("train")[0]
    neighbours = (moved.fire, moved.fire + 1)
    entries = [
        e.model_copy(
            update={
                "part": {moved.fire: "train", moved.fire + 1: "test"}.get(e.fire),
                "region": (0, cache.crops[e.fire].rows, 0, cache.crops[e.fire].columns),
            }
        )
        for e in split.fires
    ]
    names = [cache.names[i] for i in neighbours]
    bad = FireSplit(rules=Rules(pixels=pixels, max_overlap=0.1, weather="none"), fires=tuple(entries))
    with pytest.raises(ValueError, match=rf"leaks: {names[0]} \(train\) and {names[1]} \(test\) share pixels"):
        check_split(cache, bad)
    good = bad.model_copy(update={"rules": Rules(pixels="none", max_overlap=0, weather="none")})
    check_split(cache, good)


def test_a_single_pixel_that_regions_share_is_a_leak(store, tmp_path):
    fires = [Fire(1, (0, 33, 0, 33), (16, 16), 2, SERIES[:1]), Fire(2, (32, 64, 32, 64), (48, 48), 2, SERIES[5:6])]
    write_archive(tmp_path / "a", fires, {k: np.nan_to_num(v, nan=101.0) for k, v in landscape((96, 96)).items()})
    made = cache_of(store, tmp_path / "a", patch=8)
    lists = {"method": "lists", "training": (1,), "test": (2,), "keep_apart": "none", "weather": "none"}
    cache, split = split_for(store, made, **lists, validation_share=0)
    cut = split.model_copy(update={"rules": Rules(pixels="cut", max_overlap=0, weather="none")})
    assert find_leaks(cache, cut) == ["sequence_001 (train) and sequence_002 (test) share pixels"]


def test_the_checker_refuses_a_split_of_other_fires_and_torn_groups(store, caches):
    cache, split = split_for(store, caches["apart"], method="groups", validation_share=0.2, test_share=0.2)
    with pytest.raises(ValueError, match="made for another cache"):
        check_split(TokenCache.open(caches["crowd"].folder), split)
    torn = split.model_copy(update={"fires": tuple(e.model_copy(update={"group": 0}) for e in split.fires)})
    with pytest.raises(ValueError, match="puts group 0 into two parts"):
        check_split(cache, torn)


def test_a_part_that_stays_empty_is_an_error_with_the_reasons(store, caches):
    with pytest.raises(ValueError, match=r"no fire is left for .*its crop overlaps crops.*relax splits.keep_apart"):
        split_for(store, caches["crowd"], keep_apart="crop", validation_share=0.05, test_share=0.9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"validation_share": 0.5, "test_share": 0.5}, "must leave something for training"),
        ({"training": (1,)}, "need method lists"),
        ({"method": "lists"}, "needs the numbers of the training fires"),
        ({"method": "lists", "training": (1,)}, "cannot cut crops"),
        ({"method": "lists", "training": (1, 2), "test": (2,), "keep_apart": "crop"}, "named twice: 2"),
    ],
)
def test_impossible_configurations_are_refused(options, words):
    with pytest.raises(ValidationError, match=words):
        FireSplits(**options)


def test_boxes_and_what_they_share_are_counted_pixel_by_pixel():
    rng = np.random.default_rng(0)
    ends = np.sort(rng.integers(0, 12, (2, 9, 2, 2)), axis=-1)
    ends[..., 1] += 1
    a, b = ends.reshape(2, 9, 4)

    def mask(box) -> np.ndarray:
        covered = np.zeros((14, 14), bool)
        covered[box[0] : box[1], box[2] : box[3]] = True
        return covered

    assert areas(a).tolist() == [mask(box).sum() for box in a]
    assert overlaps(a, b).tolist() == [[(mask(one) & mask(other)).sum() for other in b] for one in a]


def test_a_region_that_is_not_inside_its_grid_is_refused(store, caches):
    cache, split = split_for(store, caches["crowd"], validation_share=0.25, test_share=0.3)
    entry = split.part("train")[0]
    crop = cache.crops[entry.fire]
    for region in ((-1, 2, 0, 2), (0, 2, -1, 2), (2, 2, 0, 2), (0, crop.rows + 1, 0, 2), (0, 2, 0, crop.columns + 1)):
        moved = (entry.model_copy(update={"region": region}) if e == entry else e for e in split.fires)
        with pytest.raises(ValueError, match=f"region of {entry.name} is not inside its token grid"):
            check_split(cache, split.model_copy(update={"fires": tuple(moved)}))


def test_what_burns_is_what_any_frame_or_target_shows(store, caches):
    cache = TokenCache.open(caches["crowd"].folder)
    expected = np.zeros(cache.array("landscape/classes").shape[1:], bool)
    for number in (2, 5):
        for step in range(cache.steps[number]):
            expected[cache.crops[number].pixels] |= cache.frames(number)[step]
        for step in range(cache.steps[number] - 1):
            expected[cache.crops[number].pixels] |= cache.target(number, step)
    np.testing.assert_array_equal(burnt_map(cache, [2, 5]), expected)


def test_what_the_last_frame_or_the_last_target_shows_alone_burns_as_well():
    rng = np.random.default_rng(0)
    frames, targets = rng.random((2, 3, 4, 5)) < 0.3
    cache = SimpleNamespace(
        array=lambda name: np.zeros((1, 10, 12)),
        crops=[SimpleNamespace(pixels=(slice(2, 6), slice(3, 8)))],
        steps=[3],
        frames=lambda fire: frames,
        target=lambda fire, step: targets[step],
    )
    burnt = burnt_map(cast(TokenCache, cache), [0])
    np.testing.assert_array_equal(burnt[2:6, 3:8], frames[-1] | targets[2])
    assert burnt.sum() == (frames[-1] | targets[2]).sum()


def test_fires_begin_where_they_were_lit(store, caches):
    for name, fires in (("apart", APART), ("crowd", CROWD)):
        places = ignitions(TokenCache.open(caches[name].folder))
        np.testing.assert_allclose(places, [one.ignition for one in fires], atol=0.5)


def test_bands_of_land_may_lie_one_above_the_other(store, tmp_path):
    fires = [Fire(n, (max(0, 30 * n - 20), 30 * n + 16, 20, 60), (30 * n, 40), 3, SERIES[4 * n : 4 * n + 2])
             for n in range(1, 9)]  # fmt: skip
    write_archive(tmp_path / "a", fires, {k: np.nan_to_num(v, nan=101.0) for k, v in landscape((300, 96)).items()})
    made = cache_of(store, tmp_path / "a", patch=8)
    cache, split = split_for(store, made, axis="rows", validation_share=0.25, test_share=0.25, weather="none")
    covered = [pixels(cache, boxes(cache, split, part)) for part in PARTS]
    assert sum(mask.astype(int) for mask in covered).max() == 1
    kept = [e for part in PARTS for e in split.part(part)]
    assert len(kept) >= 5
    assert all(e.region[2:] == (0, cache.crops[e.fire].columns) for e in kept), "crops are cut above and below alone"
    assert any(e.region[:2] != (0, cache.crops[e.fire].rows) for e in kept)


def test_weathers_that_share_rows_are_one_group_and_others_are_not(store, tmp_path):
    fires = [fire(n, 60 * n, first, steps=steps) for n, (first, steps) in
             enumerate([(0, 6), (3, 6), (2, 4), (20, 3), (6, 6)], 1)]  # fmt: skip
    write_archive(tmp_path / "a", fires, {k: np.nan_to_num(v, nan=101.0) for k, v in landscape((96, 430)).items()})
    cache = TokenCache.open(cache_of(store, tmp_path / "a", patch=8).folder)
    of_rows, of_files = (fire_groups(cache, FireSplits(method="groups", weather=kind)) for kind in ("rows", "file"))
    assert len(set(of_files)) == 5
    assert of_rows[0] == of_rows[2], "rows 0 to 4 and 2 to 4 share three"
    assert len(set(of_rows)) == 4, "no others share as many"


def test_a_part_of_no_share_may_stay_empty_and_fires_are_counted(store, caches, monkeypatch):
    told = []
    monkeypatch.setattr(Silent, "message", lambda self, text: told.append(text))
    asset = split_of(store, caches["crowd"], FireSplits(validation_share=0, test_share=0.3, weather="file"))
    cache, split = TokenCache.open(caches["crowd"].folder), FireSplit.load(asset.folder)
    counts = asset.manifest.counts
    left = [e for e in split.fires if e.part is None]
    assert {e.reason for e in left} <= {
        "it has the weather of fires in another part", "it begins too near to the border of its part"
    }  # fmt: skip
    assert told == [f"left out of the split: {count} fires because {reason}"
                    for reason, count in sorted(Counter(e.reason for e in left).items())]  # fmt: skip
    assert counts["validation"] == counts["validation_samples"] == 0
    for part in ("train", "test"):
        entries = split.part(part)
        assert counts[part] == len(entries) > 0
        assert counts[f"{part}_samples"] == sum(cache.steps[e.fire] - 1 for e in entries)
    whole = [(0, c.rows, 0, c.columns) for c in cache.crops]
    assert counts["left_out"] == len(left) > 0
    assert counts["crops_cut"] == sum(e.part is not None and e.region != whole[e.fire] for e in split.fires) > 0


def test_statistics_of_classes_and_wind_are_those_of_the_training_fires(store, tmp_path):
    bands = landscape((96, 430))
    bands["cbd"][:] = np.nan
    bands["fuels"][22:26, 64:70] = np.nan
    bands["fuels"][:, :230][bands["fuels"][:, :230] == max(CODES)] = min(CODES)  # the last code is elsewhere alone
    write_archive(tmp_path / "a", APART, bands)
    made = cache_of(store, tmp_path / "a", patch=8)
    lists = {"method": "lists", "training": (1, 2, 3), "validation": (5,), "test": (6,), "keep_apart": "crop"}
    asset = split_of(store, made, FireSplits(**lists))
    cache, split = TokenCache.open(made.folder), FireSplit.load(asset.folder)
    found = Statistics.load(asset.folder)
    seen = pixels(cache, boxes(cache, split, "train"))
    fuel = cache.array("landscape/classes")[cache.fuel]
    assert (seen & (fuel == 0)).any(), "some land of these fires has no fuel code"
    assert max(CODES) in cache.categorical[cache.fuel][1]
    assert max(CODES) not in {code for one in found.classes for code in one.codes}
    for statistics, (name, codes), band in zip(
        found.classes, cache.categorical, cache.array("landscape/classes"), strict=True
    ):
        there = set(band[seen & (fuel > 0)].tolist()) - {0}
        assert (statistics.name, statistics.codes) == (name, tuple(c for k, c in enumerate(codes, 1) if k in there))
    by_name = {band.name: band for band in found.bands}
    elevation = cache.continuous.index("elevation")
    valid = seen & (fuel > 0) & cache.array("landscape/valid")[elevation]
    assert by_name["elevation"].pixels == valid.sum()
    assert (by_name["cbd"].mean, by_name["cbd"].std, by_name["cbd"].pixels) == (0, 0, 0)
    speeds = np.array([speed for one in APART[:3] for speed, _ in one.wind], np.float64)
    assert (found.wind.rows, found.wind.mean, found.wind.std) == (
        9, pytest.approx(speeds.mean()), pytest.approx(speeds.std())
    )  # fmt: skip


def test_what_nobody_measured_has_no_mean_and_no_spread(store, tmp_path):
    bands = landscape((96, 430))
    bands["elevation"][:] = np.nan
    calm = [replace(one, wind=[(999.0, 999.0)] * 3) for one in APART]
    write_archive(tmp_path / "a", calm, bands)
    made = cache_of(store, tmp_path / "a", patch=8)
    asset = split_of(store, made, everything_for_training(range(1, 7)))
    found = Statistics.load(asset.folder)
    assert (found.wind.mean, found.wind.std, found.wind.rows) == (0, 0, 0)
    slopes = [band for band in found.bands if band.name.startswith("slope")]
    assert [(band.mean, band.std, band.pixels) for band in slopes] == [(0, 0, 0)] * 2


def test_a_split_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="make the split with the stage fire_split"):
        Statistics.load(tmp_path)


def test_statistics_see_training_regions_alone(store, caches):
    folder = caches["crowd"].folder
    asset = split_of(store, caches["crowd"], FireSplits(validation_share=0.25, test_share=0.3, weather="none"))
    cache, split = TokenCache.open(folder), FireSplit.load(asset.folder)
    seen = pixels(cache, boxes(cache, split, "train"))
    names = cache.continuous
    found = {b.name: b for b in Statistics.load(asset.folder).bands}
    for name in ("cbd", "elevation"):
        values = cache.array("landscape/values")[names.index(name)][seen].astype(np.float64)
        assert found[name].mean == pytest.approx(values.mean())
        assert found[name].std == pytest.approx(values.std())
    slopes = cache.array("landscape/values")[[names.index(n) for n in ("slope_east", "slope_north")]][:, seen]
    assert found["slope_east"].mean == found["slope_north"].mean == 0
    assert found["slope_east"].std == found["slope_north"].std == pytest.approx(float(np.sqrt((slopes**2.0).mean())))


@pytest.mark.long
def test_the_default_split_of_the_real_archive(real_cache, fire_data, tmp_path):
    """Held against the recorded truth: ignitions, weather files and windows of `sequences.json`."""
    asset = split_of(AssetStore(tmp_path), real_cache, FireSplits())
    cache, split = TokenCache.open(real_cache.folder), FireSplit.load(asset.folder)
    counts = asset.manifest.counts
    assert counts["train"] >= 140
    assert counts["validation"] >= 35
    assert counts["test"] >= 50
    truth = {f["seq"]: f for f in json.loads((fire_data / "zona60" / "sequences.json").read_text())}
    of_part = {part: [truth[int(cache.array("seq/number")[e.fire])] for e in split.part(part)] for part in PARTS}
    columns = [[f["ignition_col"] for f in of_part[part]] for part in PARTS]
    assert max(columns[0]) < min(columns[1]) <= max(columns[1]) < min(columns[2])
    files = [{f["weather"] for f in of_part[part]} for part in PARTS]
    assert not files[0] & files[1] | files[0] & files[2] | files[1] & files[2]
    covered = [pixels(cache, boxes(cache, split, part)) for part in PARTS]
    assert sum(mask.astype(int) for mask in covered).max() == 1


def test_weather_conflicts_of_the_real_archive_are_those_of_its_provenance(real_cache, fire_data):
    cache = TokenCache.open(real_cache.folder)
    truth = {f["seq"]: f for f in json.loads((fire_data / "zona60" / "sequences.json").read_text())}
    conflicts = weather_conflicts(cache)
    weather, numbers = cache.array("seq/weather").tolist(), cache.array("seq/number").tolist()
    spans = {}
    for number, sequence in zip(weather, numbers, strict=True):
        spans[number] = truth[sequence]["weather_first_row"], truth[sequence]["rows"]
    for a, (first, rows) in spans.items():
        for b, (start, length) in spans.items():
            shared = min(first + rows, start + length) - max(first, start)
            if a != b and shared >= min(3, rows, length):
                assert b in conflicts[a]


def test_the_report_draws_and_counts(store, caches):
    from tasks.fire.report import fire_data_report
    from tasks.progress import Silent
    from tasks.session import Session

    split = split_of(store, caches["crowd"], FireSplits(validation_share=0.25, test_share=0.3))
    with Session(store, Silent()).active():
        report = fire_data_report(cache=caches["crowd"], split=split)
    assert {f.path for f in report.manifest.files} == {"fires.png", "lengths.png", "map.png", "bands.csv"}
    assert report.manifest.metrics["share_with_at_most_6_frames"] == 1.0
    assert report.manifest.counts["burnt_though_unburnable"] == _burnt_on_listed_codes(caches["crowd"])
    rows = [line.split(",") for line in (report.folder / "bands.csv").read_text().splitlines()]
    cache = TokenCache.open(caches["crowd"].folder)
    share = {row[0]: row[3] for row in rows[1:]}
    band = cache.continuous.index("elevation")
    crops = np.concatenate([~cache.array("landscape/valid")[band][crop.pixels].ravel() for crop in cache.crops])
    assert share["elevation"] == f"{crops.mean():.2%}"


def _burnt_on_listed_codes(asset) -> int:
    """Count by code, pixel by pixel, what burns where the declaration says that nothing can."""
    cache = TokenCache.open(asset.folder)
    codes = [None, *cache.categorical[cache.fuel][1]]
    found = 0
    for fire, crop in enumerate(cache.crops):
        burnt = cache.frames(fire)[-1] | cache.target(fire, cache.steps[fire] - 1)
        fuel = cache.array("landscape/classes")[cache.fuel][crop.pixels]
        found += sum(codes[fuel[y, x]] in cache.attributes["decoding"]["unburnable"] for y, x in np.argwhere(burnt))
    return found
