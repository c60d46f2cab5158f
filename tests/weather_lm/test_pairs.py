"""Which windows a caption belongs to, what the fields say of a day, and texts as tokens and documents."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.weather import Recipe, SplitConfig, WindowConfig
from configs.weather_lm import JoinConfig
from storage.window_store import WindowStore
from tasks.captions.placed import PlacedCaption
from tasks.captions.region_table import Box
from tasks.era5.training_set import build_training_set
from tasks.narration.dataset import NarrationPairs
from tasks.narration.documents import load_documents, make_documents, write_documents
from tasks.narration.language_objective import Documents
from tasks.narration.pairs import BOTH, NO_PLACE, NO_VIEW, NO_WINDOW, Pair, Pairs, Windows, days_text, join
from tasks.narration.truth import FieldTruth
from tasks.text.tokens import Tokens, train_tokenizer
from tests.era5.stores import noise, write_store

DAYS, ROWS, COLUMNS = 6, 16, 36
"""Hourly, 60 to 30 degrees north in steps of 2, around the globe in steps of 10."""
WEST: Box = (61.0, -5.0, 45.0, 35.0)
"""What the north-western window shows."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> WindowStore:
    return write_store(tmp_path_factory.mktemp("pairs") / "store", noise((24 * DAYS, 2, ROWS, COLUMNS)))


def windows_of(store: WindowStore, splits: SplitConfig, **settings: Any) -> Windows:
    sizes = {"time": 12, "height": 8, "width": 4, "stride_time": 12, "stride_height": 8, "stride_width": 4}
    return Windows(store, build_training_set(store, WindowConfig(**sizes | settings), splits))


def all_train(store: WindowStore, **settings: Any) -> Windows:
    return windows_of(store, SplitConfig(validation_share=0, test_share=0), **settings)


def caption(day: int, box: Box | None = WEST, text: str = "rain", region: str | None = "West") -> PlacedCaption:
    return PlacedCaption(date(2024, 1, day), region, box, text, "a.csv:1")


def joined(windows: Windows, *captions: PlacedCaption, split: str = "train", **settings: Any) -> Pairs:
    return join(windows, captions, JoinConfig(**settings), split)


def test_a_caption_belongs_to_the_windows_of_its_date_that_show_its_region(store):
    windows = all_train(store)
    found = joined(windows, caption(2), caption(2, text="wind"), caption(3))
    assert [(pair.date.day, pair.texts) for pair in found.pairs] == 2 * [(2, ("rain", "wind"))] + 2 * [(3, ("rain",))]
    for pair in found.pairs:
        (box,) = (box for index, box, _ in windows.of("train")[pair.date] if index == pair.window)
        assert box == WEST


def test_the_anchor_step_says_which_date_a_window_is_of(store):
    config = {"time_start": "2024-01-01T18:00"}
    first = joined(all_train(store, anchor="first", **config), caption(1), min_day_share=0.1)
    last = joined(all_train(store, anchor="last", **config), caption(1), min_day_share=0.1)
    assert len(first) == 1, "its first step lies on the 1st"
    assert len(last) == 0, "its last step lies on the 2nd"
    assert last.unused == {NO_WINDOW: 1}


def test_a_window_that_shows_too_little_of_the_date_has_no_caption(store):
    windows = all_train(store, anchor="first", time_start="2024-01-01T18:00")
    assert len(joined(windows, caption(1), min_day_share=0.5)) == 1
    assert joined(windows, caption(1), min_day_share=0.6).unused == {NO_VIEW: 1}


def test_regions_elsewhere_or_unknown_are_counted(store):
    windows = all_train(store)
    assert joined(windows, caption(2, box=(10.0, 0.0, 0.0, 10.0))).unused == {NO_VIEW: 1}
    assert joined(windows, caption(2, box=None)).unused == {NO_PLACE: 1}
    everywhere = joined(windows, caption(2, box=None), unplaced="everywhere")
    assert len(everywhere) == len(windows.of("train")[date(2024, 1, 2)])


def test_a_window_inside_of_a_large_region_is_told_about(store):
    hemisphere: Box = (90.0, -90.0, 0.0, 90.0)
    found = joined(all_train(store), caption(2, box=hemisphere))
    assert found.pairs
    thin: Box = (61.0, -5.0, 59.0, 180.0)
    assert joined(all_train(store), caption(2, box=thin)).unused == {NO_VIEW: 1}


def test_windows_around_the_globe_have_their_edges_between_180_west_and_180_east(store):
    boxes = [box for index, box, _ in all_train(store).of("train")[date(2024, 1, 2)]]
    assert {west for _, west, _, _ in boxes} == {-5.0, 35.0, 75.0, 115.0, 155.0, -165.0, -125.0, -85.0, -45.0}
    assert all((east - west) % 360 == 40 for _, west, _, east in boxes)


def test_pairs_come_by_date_window_and_region(store):
    windows = all_train(store)
    said = [caption(day, region=region) for day in (3, 2) for region in ("West", "Alps", None)]
    found = [(pair.date.day, pair.window, pair.region or "") for pair in joined(windows, *said).pairs]
    assert found == sorted(found)
    assert [region for day, _, region in found if day == 2] == 2 * ["", "Alps", "West"]


def test_many_dates_are_told_by_the_first_and_the_last():
    days = [date(2024, 1, day) for day in range(20, 0, -1)]
    assert days_text(days[:3]) == "2024-01-18, 2024-01-19, 2024-01-20"
    assert days_text([]) == "none"
    first, last = (", ".join(f"2024-01-{day:02}" for day in range(*ends)) for ends in ((1, 7), (15, 21)))
    assert days_text(days) == f"{first}, ..., {last} (20 in all)"


def test_a_date_of_two_splits_belongs_to_neither(store):
    """A split in the middle of a day: its morning trains, its evening tests."""
    windows = windows_of(store, SplitConfig(validation_share=0, test_share=0.45), time=2, stride_time=2)
    shared = {date(2024, 1, 4)}
    assert shared == windows.shared_days("train") == windows.shared_days("test")
    for split in ("train", "test"):
        found = joined(windows, *(caption(day) for day in range(1, DAYS + 1)), split=split, min_day_share=0.0)
        assert found.unused[BOTH] == 1
        assert not {pair.date for pair in found.pairs} & shared


def test_a_window_without_a_caption_is_an_error_where_every_window_needs_one(store):
    with pytest.raises(ValueError, match="windows of train have no caption, the first on 2024-01-01"):
        joined(all_train(store), caption(2), drop_if_no_caption=False)


def rain(accumulation: str | None) -> Recipe:
    return Recipe.model_validate({"variables": [{"variable": "tp", "accumulation": accumulation}]})


def test_the_truth_of_a_day_is_that_of_plain_numpy(tmp_path: Path):
    random = np.random.default_rng(0)
    data = random.normal(0, 8, (48, 5, ROWS, COLUMNS)).astype(np.float32)
    data[:, 2] += 285
    data[:, 3] = 101_000 + 300 * data[:, 3]
    data[:, 4] = np.abs(data[:, 4]) / 4000
    data[:, 2, 3, 1] = np.nan
    units = {"u10": "m s**-1", "v10": "m s**-1", "t2m": "K", "msl": "Pa", "tp": "m"}
    truth = FieldTruth(write_store(tmp_path / "store", data, units=units, recipe=rain("hourly")))
    box: Box = (56.5, -15.0, 43.0, 25.0)  # rows 2 to 8; columns at -10, 0, 10 and 20
    rows, columns = np.arange(2, 9), np.array([35, 0, 1, 2])
    part = data[24:, :][:, :, rows][:, :, :, columns].astype(np.float64)
    area = np.broadcast_to(np.cos(np.radians(60 - 2 * rows))[:, None], (24, len(rows), 4))

    found = truth.day(date(2024, 1, 2), box)
    celsius = part[:, 2] - 273.15
    there = np.isfinite(celsius)
    assert found["temperature", "maximum"] == pytest.approx(np.nanmax(celsius))
    assert found["temperature", "minimum"] == pytest.approx(np.nanmin(celsius))
    assert found["temperature", "mean"] == pytest.approx((celsius[there] * area[there]).sum() / area[there].sum())
    assert found["wind", "maximum"] == pytest.approx(np.hypot(part[:, 0], part[:, 1]).max())
    assert found["pressure", "minimum"] == pytest.approx(part[:, 3].min() / 100)
    assert found["rain", "maximum"] == pytest.approx(1000 * part[:, 4].sum(0).max())
    before = truth.day(date(2024, 1, 1), box)
    assert found["pressure", "change"] == pytest.approx(found["pressure", "mean"] - before["pressure", "mean"])
    assert ("pressure", "change") not in before
    assert truth.day(date(2024, 1, 3), box) == {}


def test_rain_every_three_hours_is_three_times_as_much_a_day_and_the_sea_has_a_mean_alone(tmp_path: Path):
    random = np.random.default_rng(0)
    data = random.uniform(0, 0.004, (8, 2, ROWS, COLUMNS)).astype(np.float32)
    data[:, 1] += 290
    units = {"tp": "m", "sst": "K"}
    truth = FieldTruth(write_store(tmp_path / "store", data, units=units, hours=3, recipe=rain("hourly")))
    found = truth.day(date(2024, 1, 1), None)
    assert set(found) == {("rain", "maximum"), ("rain", "mean"), ("sea temperature", "mean")}
    assert found["rain", "maximum"] == pytest.approx(3000 * data[:, 0].sum(0, dtype=float).max())


def rain_truth(folder: Path, tp: np.ndarray, accumulation: str | None, hours: int = 1) -> FieldTruth:
    """Return the truth of a store of rain in m, equal everywhere; `tp` begins at 00 UTC of the first."""
    data = np.broadcast_to(tp.astype(np.float32)[:, None, None, None], (len(tp), 1, ROWS, COLUMNS))
    return FieldTruth(write_store(folder, data, units={"tp": "m"}, hours=hours, recipe=rain(accumulation)))


@pytest.mark.parametrize("hours", [1, 3, 6, 24])
def test_rain_of_totals_since_00_utc_is_what_the_next_midnight_holds(tmp_path: Path, hours: int):
    per_hour = np.repeat([0.001, 0.002, 0.003], 24)
    totals = np.concatenate([day.cumsum() for day in np.split(per_hour, 3)])
    held = np.concatenate([[0.009], totals])[:-1:hours]  # each value at the end of its hour
    truth = rain_truth(tmp_path / "store", held, "since_00utc", hours)
    for day, amount in ((1, 24), (2, 48)):
        found = truth.day(date(2024, 1, day), None)
        assert found == {("rain", "maximum"): pytest.approx(amount), ("rain", "mean"): pytest.approx(amount)}
    assert truth.day(date(2024, 1, 3), None) == {}, "the midnight that closes it is not there"


@pytest.mark.parametrize("accumulation", ["mean_rate", None])
def test_rain_is_not_known_where_no_one_says_what_a_value_holds(tmp_path: Path, accumulation: str | None):
    assert rain_truth(tmp_path / "store", np.full(48, 0.001), accumulation).day(date(2024, 1, 1), None) == {}


@pytest.mark.parametrize("hours", [1, 3, 6])
def test_a_day_has_a_truth_where_all_of_its_steps_are_there(tmp_path: Path, hours: int):
    per_day = 24 // hours
    whole, gap, part = np.full(per_day, 280.0), np.full(per_day, 280.0), np.full(6 // hours, 280.0)
    gap[2] = np.nan
    kelvin = np.concatenate([whole, gap, whole, whole, part])
    data = np.broadcast_to(kelvin.astype(np.float32)[:, None, None, None], (len(kelvin), 3, ROWS, COLUMNS)).copy()
    data[:, 1] = 0.001 * hours
    data[:, 2] = 290
    data[:, 2, :8] = np.nan  # land
    units = {"t2m": "K", "tp": "m", "sst": "K"}
    truth = FieldTruth(write_store(tmp_path / "store", data, units=units, hours=hours, recipe=rain("hourly")))
    kinds = [{kind for kind, _ in truth.day(date(2024, 1, day), None)} for day in range(1, 6)]
    every = {"temperature", "rain", "sea temperature"}
    assert kinds == [every, every - {"temperature"}, every, every, set()]
    changes = [("temperature", "change") in truth.day(date(2024, 1, day), None) for day in range(1, 6)]
    assert changes == [False, False, False, True, False]
    land: Box = (60.0, 0.0, 50.0, 20.0)
    assert {kind for kind, _ in truth.day(date(2024, 1, 1), land)} == {"temperature", "rain"}


def test_a_day_with_a_missing_hour_has_no_rain_and_not_rain_that_is_no_number(tmp_path: Path):
    tp = np.full(48, 0.001)
    tp[30] = np.nan
    truth = rain_truth(tmp_path / "store", tp, "hourly")
    assert truth.day(date(2024, 1, 1), None)["rain", "maximum"] == pytest.approx(24)
    assert truth.day(date(2024, 1, 2), None) == {}


def test_a_region_ends_before_its_eastern_edge_and_after_its_southern_one(tmp_path: Path):
    data = np.zeros((24, 1, ROWS, COLUMNS), np.float32)
    data[:, 0, :, 2], data[:, 0, 5, :] = 50, 50  # 20 degrees east, 50 degrees north
    truth = FieldTruth(write_store(tmp_path / "store", data, units={"t2m": "K"}))
    edges: Box = (60.0, 0.0, 50.0, 20.0)
    assert truth.day(date(2024, 1, 1), edges)["temperature", "maximum"] == pytest.approx(-273.15)
    beyond: Box = (60.0, 0.0, 50.0, 20.5)
    assert truth.day(date(2024, 1, 1), beyond)["temperature", "maximum"] == pytest.approx(-223.15)


def test_texts_come_back_from_their_tokens_and_digits_are_tokens(tmp_path):
    texts = ["High of 23.5 °C, wind 12 m/s", "Низкое давление 982 гПа"]
    train_tokenizer(texts, 400, tmp_path)
    tokens = Tokens.load(tmp_path)
    for text in texts:
        assert tokens.text(tokens.ids(text)) == text
    assert len(tokens.ids("98245")) == 5


def test_a_text_is_cut_to_its_room_and_then_has_no_end(tmp_path):
    train_tokenizer(["rain and wind"], 400, tmp_path)
    tokens = Tokens.load(tmp_path)
    ids, head = tokens.encode("Spain:", "rain and wind")
    assert ids[0] == tokens.begin
    assert ids[-1] == tokens.end
    assert tokens.text(ids[head:]) == "rain and wind"
    cut, _ = tokens.encode("Spain:", "rain and wind", longest=1)
    assert cut == ids[: head + 1]


def test_what_comes_before_a_caption_and_captions_that_are_cut_are_counted(store, tmp_path):
    train_tokenizer(["rain", "wind", "West:"], 400, tmp_path)
    tokens = Tokens.load(tmp_path)
    texts = ("rain", "rain and wind", "rain and wind and more of both")
    lengths = [len(tokens.ids(f" {text}")) + 1 for text in texts]  # with the end
    pairs = Pairs(
        "train", [Pair(0, date(2024, 1, 2), "West", WEST, texts), Pair(1, date(2024, 1, 3), "A", WEST, texts)]
    )

    def with_room(longest: int) -> NarrationPairs:
        return NarrationPairs(None, pairs, tokens, "{region}:", longest)  # type: ignore[arg-type]

    assert [with_room(longest).cut() for longest in (lengths[0] - 1, *lengths)] == [3, 2, 1, 0]
    assert [with_room(9).head(k) for k in (0, 1)] == [1 + len(tokens.ids("West:")), 1 + len(tokens.ids("A:"))]


def test_documents_hold_out_whole_days_and_keep_their_wordings(tmp_path):
    captions = [caption(day, region=region, text=f"{region} {day} {k}")
                for day in range(1, 29) for region in ("a", "b") for k in range(2)]  # fmt: skip
    documents = make_documents(captions, held_out=0.3)
    assert len(documents) == 56
    assert all(document.texts == tuple(f"{document.region} {document.date.day} {k}" for k in range(2))
               for document in documents)  # fmt: skip
    days = {part: {d.date for d in documents if d.part == part} for part in ("train", "validation")}
    assert days["train"]
    assert days["validation"]
    assert not days["train"] & days["validation"]
    write_documents(tmp_path / "d.jsonl", documents)
    assert load_documents(tmp_path / "d.jsonl") == documents


def test_a_training_text_tells_of_several_regions_of_one_date(tmp_path):
    told = [(day, region) for day in (1, 2) for region in ("Alps", "Baltic", "Crete")]
    captions = [caption(day, region=region, text=f"{region} saw {day} mm {words}")
                for day, region in told for words in ("of rain", "fall")]  # fmt: skip
    train_tokenizer([c.text for c in captions], 400, tmp_path)
    tokens = Tokens.load(tmp_path)
    documents = make_documents(captions, held_out=0.3)
    source = Documents(documents, tokens, length=500, prompt="{region}:", regions=2)
    orders = set()
    for seed in range(20):
        text = tokens.tokenizer.decode(source.sample(0, seed))
        assert text == tokens.tokenizer.decode(source.sample(0, seed)), "the seed decides"
        pieces = [piece.removeprefix("<s>") for piece in text.split("</s>") if piece]
        regions = {piece.split(":")[0] for piece in pieces}
        assert len(pieces) == 4
        assert len(regions) == 2
        assert "Alps" in regions
        assert all(f" {documents[0].date.day} mm" in piece for piece in pieces)
        orders.add(tuple(pieces))
    assert len(orders) > 5
    assert source.sample(0, 0)[:7] == Documents(documents, tokens, 7, "{region}:", 2).sample(0, 0)
