"""Scores of narrators that are known: what each condition is given, and the sign and size of gap and gain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.weather import SplitConfig, WindowConfig
from configs.weather_lm import JoinConfig, NarrationEvaluation
from models.weather.narrator import NarrationBatch
from storage.training_set import normalisation
from storage.window_dataset import WindowDataset
from tasks.captions.placed import PlacedCaption
from tasks.captions.region_table import Box
from tasks.era5.training_set import build_training_set
from tasks.narration import evaluation
from tasks.narration.dataset import ControlledPairs, NarrationPairs, other_weather
from tasks.narration.evaluation import (
    compare,
    evaluate_narrator,
    likelihood_table,
    likelihoods,
    text_table,
    write_texts,
)
from tasks.narration.pairs import Windows, join
from tasks.text.tokens import Tokens
from tests.era5.stores import write_store

DAYS, APART = 10, 11
"""Dates that are told about, and how many days from one to the next: each is a spell of weather of its own."""
START = date(2024, 1, 1)
REGIONS: dict[str, Box] = {"West": (61.0, -5.0, 45.0, 175.0), "East": (61.0, 175.0, 45.0, 355.0)}
CONFIG = NarrationEvaluation(samples=20, texts=20, resamples=100)


def celsius(day: date, region: str) -> float:
    """Each region has a temperature of its own each day, no two of a region within the tolerance of 2 degrees."""
    return 4.0 * (3 * ((day - START).days // APART) % DAYS) + (1.0 if region == "East" else 0.0)


class Letters:
    """A tokenizer whose tokens are characters."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        return "".join(chr(k) for k in ids if k > 2)


@dataclass
class KnownNarrator:
    """It sees a window's temperature, and needs a nat per token and one more for each degree that it believes wrong."""

    pairs: NarrationPairs
    believes: Callable[[Tensor], Tensor] = field(default=lambda seen: seen)
    """What it makes of the temperature that it sees."""
    looked_at: list[list[float]] = field(default_factory=list)

    def soft_prompts(self, batch: NarrationBatch) -> Tensor:
        mean, scale = normalisation(self.pairs.windows.statistics)
        seen = batch.data.mean((1, 2, 3, 4)) / float(scale[0]) + float(mean[0]) - 273.15
        self.looked_at.append([round(t, 1) for t in seen.tolist()])
        return self.believes(seen)[:, None, None]

    def caption_nll(self, batch: NarrationBatch, prompts: Tensor | None) -> Tensor:
        tokens = batch.learned.sum(1).double()
        if prompts is None:
            return 3 * tokens
        told = [self.pairs.pairs[k] for k in batch.sample.tolist()]
        true = torch.tensor([celsius(pair.date, str(pair.region)) for pair in told])
        return tokens + (prompts[:, 0, 0] - true).abs()

    def write(self, batch: NarrationBatch, prompts: Tensor, **settings: Any) -> list[list[int]]:
        assert settings["max_new_tokens"] == CONFIG.max_new_tokens
        assert (batch.learned.sum(1) == 2).all(), (
            "a space and an end: the caption is not shown to the one who writes it"
        )
        return [[*map(ord, f"High of {degrees:.1f} °C, dry."), 2] for degrees in prompts[:, 0, 0].tolist()]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> NarrationPairs:
    """A window for each date and region, all of one temperature; four steps a day."""
    folder = tmp_path_factory.mktemp("narration")
    days = [START + timedelta(APART * k) for k in range(DAYS)]
    data = np.empty((4 * APART * DAYS, 1, 16, 36), np.float32)
    for spell, day in zip(np.split(data, DAYS), days, strict=True):
        spell[..., :18], spell[..., 18:] = (273.15 + celsius(day, region) for region in REGIONS)
    store = write_store(folder / "store", data, units={"t2m": "K"}, hours=6)
    sizes = WindowConfig(
        time=4, height=8, width=18, stride_time=4 * APART, stride_height=16, stride_width=18, anchor="first"
    )
    prepared = build_training_set(store, sizes, SplitConfig(validation_share=0, test_share=0))
    prepared.save(folder / "set")
    captions = [
        PlacedCaption(day, region, box, f"High of {celsius(day, region):.1f} °C, dry.", "a.csv:1")
        for day in days
        for region, box in REGIONS.items()
    ]
    found = join(Windows(store, prepared), captions, JoinConfig(), "train")
    assert len(found) == 2 * DAYS
    tokens = Tokens(Letters(), begin=1, end=2)
    return NarrationPairs(WindowDataset(folder / "store", folder / "set", "train"), found, tokens, "{region}:", 96)


def release_of(pairs: NarrationPairs, vision: bool = True, **settings: Any) -> Any:
    return SimpleNamespace(
        network=KnownNarrator(pairs, **settings), tokens=Tokens(Letters(), begin=1, end=2),
        recipe=SimpleNamespace(vision=vision, language="known"),
    )  # fmt: skip


def degrees_of(pairs: NarrationPairs, chosen: Sequence[int]) -> list[float]:
    return [celsius(pairs.pairs[k].date, str(pairs.pairs[k].region)) for k in chosen]


def degrees_seen(pairs: NarrationPairs, weather: Sequence[int]) -> list[float]:
    """Return the temperature of windows; each is of one pair."""
    of_window = {pair.window: k for k, pair in enumerate(pairs.pairs)}
    return degrees_of(pairs, [of_window[window] for window in weather])


def letters(pairs: NarrationPairs) -> np.ndarray:
    """The tokens of each caption: its letters, a space before and the end after them."""
    return np.array([len(pair.texts[0]) + 2 for pair in pairs.pairs])


def test_each_condition_is_given_its_own_window(pairs: NarrationPairs) -> None:
    release = release_of(pairs)
    found = likelihoods(release, pairs, CONFIG)
    controls = ControlledPairs(pairs, CONFIG.samples, CONFIG.seed)
    own, other = degrees_of(pairs, controls.chosen), degrees_seen(pairs, controls.others)
    assert release.network.looked_at == [own[:16], other[:16], own[16:], other[16:]]
    count = letters(pairs)
    np.testing.assert_array_equal(found.tokens, count)
    np.testing.assert_allclose(found.nats[0], count, atol=1e-3)
    np.testing.assert_allclose(found.nats[1], count + np.abs(np.subtract(own, other)), atol=1e-3)
    np.testing.assert_array_equal(found.nats[2], 3 * count)
    assert found.dates == [pair.date for pair in pairs.pairs]


def test_gaps_say_how_many_more_nats_the_controls_need(pairs: NarrationPairs) -> None:
    table = likelihood_table(likelihoods(release_of(pairs), pairs, CONFIG), CONFIG)
    controls = ControlledPairs(pairs, CONFIG.samples, CONFIG.seed)
    wrong = np.abs(np.subtract(degrees_of(pairs, controls.chosen), degrees_seen(pairs, controls.others)))
    more = wrong.sum() / letters(pairs).sum()
    assert table["nats_per_token"] == pytest.approx({"true": 1, "shuffled": 1 + more, "blind": 3}, abs=1e-4)
    assert table["perplexity"] == pytest.approx(np.e, rel=1e-4)
    assert table["gap_to_shuffled"]["value"] == pytest.approx(more, abs=1e-4)
    assert 4 / 25 < table["gap_to_shuffled"]["low"] < more < table["gap_to_shuffled"]["high"] < 36 / 23
    assert table["gap_to_blind"] == pytest.approx({"value": 2, "low": 2, "high": 2}, abs=1e-4)
    assert (table["captions"], table["days"], table["spells"]) == (20, 10, 10)
    assert table["tokens"] == letters(pairs).sum()


def test_captions_of_one_spell_are_drawn_together(pairs: NarrationPairs) -> None:
    """Two captions of a date of which one needs as much more as the other needs less: no spell differs from another."""
    found = likelihoods(release_of(pairs), pairs, CONFIG)
    east = np.array([pair.region == "East" for pair in pairs.pairs])
    found.tokens[:] = 10
    found.nats[0], found.nats[1] = 10, np.where(east, 30, 10)
    table = likelihood_table(found, CONFIG)
    assert table["gap_to_shuffled"] == pytest.approx({"value": 1, "low": 1, "high": 1})
    near = replace(found, dates=[START + timedelta(days=k // 2) for k in range(20)])
    assert likelihood_table(near, CONFIG)["spells"] == 1, "ten days on end"


def test_the_control_has_the_weather_of_another_date_and_the_place_and_time_of_the_window(
    pairs: NarrationPairs,
) -> None:
    controls = ControlledPairs(pairs, CONFIG.samples, CONFIG.seed)
    for k, weather in enumerate(controls.others):
        own, other = (sample.window for sample in controls.sample(k, 0))
        assert torch.equal(other["data"], pairs.windows[weather]["data"])
        assert not torch.equal(other["data"], own["data"])
        assert all(torch.equal(own[name], other[name]) for name in ("time", "latitude", "longitude"))
        assert torch.equal(pairs.windows[weather]["longitude"], own["longitude"]), "no field is moved to another place"


def test_a_partner_is_of_the_season_and_not_of_the_days_around_it(pairs: NarrationPairs) -> None:
    """Of dates 11 days apart those within 45 days are up to four before and after."""
    windows = pairs.windows
    of_west = [k for k in range(len(windows)) if float(windows[k]["longitude"][0]) < 180]
    drawn = np.array([other_weather(windows, of_west, seed) for seed in range(60)])
    for k in range(DAYS):
        allowed = {of_west[j] for j in range(DAYS) if 0 < abs(j - k) <= 4}
        assert set(drawn[:, k].tolist()) == allowed
    assert other_weather(windows, of_west, 7) == other_weather(windows, of_west, 7)


@pytest.mark.parametrize(
    ("days", "partners"),
    [
        ((0, 1, 6), ({2}, {2}, {0, 1})),
        ((0, 1, 2), ({1, 2}, {0, 2}, {0, 1})),
        ((0, 100, 200), ({1, 2}, {0, 2}, {0, 1})),
        ((0, 100, 360), ({2}, {0, 2}, {0})),
        ((0, 366, 200), ({1}, {0}, {0, 1})),
    ],
)
def test_partners_are_far_in_time_and_near_in_season_as_far_as_there_are_any(
    days: tuple[int, ...], partners: tuple[set[int], ...]
) -> None:
    time = np.datetime64(START) + np.array(days, "timedelta64[D]")
    prepared = SimpleNamespace(origin=lambda split, k: (k, 0, 0), grid=SimpleNamespace(anchor_step=0))

    class Windows:
        store, training_set, split = SimpleNamespace(time=time), prepared, "test"

        def __len__(self) -> int:
            return len(days)

    drawn = np.array([other_weather(Windows(), [0, 1, 2], seed) for seed in range(40)])  # type: ignore[arg-type]
    assert tuple(set(column) for column in drawn.T.tolist()) == partners


def test_windows_of_one_date_cannot_be_judged(pairs: NarrationPairs) -> None:
    prepared = SimpleNamespace(origin=lambda split, k: (0, 0, k), grid=SimpleNamespace(anchor_step=0))

    class Windows:
        store, training_set, split = SimpleNamespace(time=np.array(["2024-01-01"], "datetime64[h]")), prepared, "test"

        def __len__(self) -> int:
            return 2

    with pytest.raises(ValueError, match="all windows of test that show one place are of 2024-01-01"):
        other_weather(Windows(), [0], 0)  # type: ignore[arg-type]


def test_a_narrator_stands_beside_the_best_of_its_controls(pairs: NarrationPairs) -> None:
    """The climate's 18.5 degrees are nearer to the truth than another date is; half a degree more costs half a nat."""
    judged = {
        name: evaluate_narrator(release_of(pairs, vision, believes=believes), pairs, CONFIG)[0]
        for name, vision, believes in (
            ("looks", True, lambda seen: seen),
            ("near", True, lambda seen: seen + 0.5),
            ("climate", False, lambda seen: torch.full_like(seen, 18.5)),
        )
    }
    tables = compare(judged, CONFIG)
    count, degrees = letters(pairs).sum(), np.array(degrees_of(pairs, range(20)))
    gap = np.abs(degrees - 18.5).sum() / count
    assert tables["looks"]["gap_to_climate"]["value"] == pytest.approx(gap, abs=1e-4)
    assert tables["looks"]["gap"] == {"control": "climate", **tables["looks"]["gap_to_climate"]}
    assert gap < tables["looks"]["gap_to_shuffled"]["value"]
    assert tables["near"]["gap_to_climate"]["value"] == pytest.approx(gap - 10 / count, abs=1e-4)
    assert tables["near"]["gain_over_first"]["value"] == pytest.approx(-10 / count, abs=1e-4)
    right = np.mean(np.abs(degrees - 18.5) <= 2)
    assert tables["looks"]["value_accuracy_gain_over_climate"]["value"] == pytest.approx(1 - right)
    for table in (tables["climate"], compare({"looks": judged["looks"]}, CONFIG)["looks"]):
        assert table["gap_to_climate"] is table["value_accuracy_gain_over_climate"] is None
    assert tables["climate"]["gap"] == {"control": "shuffled", "value": 0, "low": 0, "high": 0}
    assert tables["looks"]["gain_over_first"] is None


def test_a_narrator_that_looks_gains_from_the_true_window(pairs: NarrationPairs) -> None:
    judged, told = evaluate_narrator(release_of(pairs), pairs, CONFIG)
    table = judged.table
    assert (table["true"]["value_accuracy"], table["shuffled"]["value_accuracy"]) == (1, 0)
    assert table["value_accuracy_gain"] == {"value": 1, "low": 1, "high": 1}
    assert table["gap_to_shuffled"]["low"] > 0
    assert table["true"]["BLEU"] == pytest.approx(100)
    assert table["shuffled"]["BLEU"] < 90
    assert [t.text for t in told] == [pair.texts[0] for pair in pairs.pairs]


def test_a_narrator_that_does_not_look_gains_nothing(pairs: NarrationPairs) -> None:
    table = evaluate_narrator(release_of(pairs, believes=torch.zeros_like), pairs, CONFIG)[0].table
    for measure in ("value_accuracy", "BLEU", "chrF", "mae_temperature"):
        assert table["true"][measure] == table["shuffled"][measure]
    assert table["value_accuracy_gain"] == table["gap_to_shuffled"] == {"value": 0, "low": 0, "high": 0}


def test_a_narrator_that_tells_the_weather_of_another_date_loses(pairs: NarrationPairs) -> None:
    """It is always so many degrees off, the number by which the shuffled window is off most often."""
    controls = ControlledPairs(pairs, CONFIG.samples, CONFIG.seed)
    off = np.subtract(degrees_of(pairs, range(20)), degrees_seen(pairs, controls.others)) % 40
    most = np.bincount(off.astype(int)).argmax()
    table = evaluate_narrator(release_of(pairs, believes=lambda seen: (seen + most) % 40), pairs, CONFIG)[0].table
    assert table["true"]["value_accuracy"] == 0
    assert table["shuffled"]["value_accuracy"] == np.mean(off == most) > 0
    assert table["value_accuracy_gain"]["value"] == pytest.approx(-np.mean(off == most))
    assert table["value_accuracy_gain"]["low"] < -np.mean(off == most) < table["value_accuracy_gain"]["high"]


def test_texts_are_written_from_the_windows_that_are_named(pairs: NarrationPairs) -> None:
    chosen = [(3, pairs.pairs[8].window), (8, pairs.pairs[8].window), (0, pairs.pairs[19].window)]
    told = write_texts(release_of(pairs), pairs, chosen, CONFIG)
    assert [(t.index, t.weather) for t in told] == chosen
    assert [t.text for t in told] == [f"High of {d:.1f} °C, dry." for d in degrees_of(pairs, [8, 8, 19])]


def test_texts_of_both_conditions_are_of_as_many_pairs_as_asked_for_evenly_spaced(
    pairs: NarrationPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Any]] = []

    def kept(pairs: NarrationPairs, true: Any, shuffled: Any, config: NarrationEvaluation) -> Any:
        seen.extend([true, shuffled])
        return text_table(pairs, true, shuffled, config)

    monkeypatch.setattr(evaluation, "text_table", kept)
    config = CONFIG.model_copy(update={"texts": 5, "samples": 8})
    judged, told = evaluate_narrator(release_of(pairs), pairs, config)
    true, shuffled = seen
    assert [t.index for t in true] == [t.index for t in shuffled] == [0, 4, 8, 12, 16]
    assert [t.weather for t in true] == [pairs.pairs[k].window for k in (0, 4, 8, 12, 16)]
    for t in shuffled:
        (window,) = {pair.date for pair in pairs.pairs if pair.window == t.weather}
        assert window != pairs.pairs[t.index].date
    assert told == true
    assert (judged.table["captions"], judged.table["texts"]) == (8, 5)


def test_a_text_counts_its_values_and_how_far_off_they_are(pairs: NarrationPairs) -> None:
    """Half of the narrator's highs are 1.5 degrees off, which is within the tolerance, and half 5, which is not."""
    even = [k % 2 == 0 for k in range(len(pairs.pairs))]
    true = [
        evaluation.Told(k, 0, f"High of {d + (1.5 if near else -5):.1f} °C.")
        for k, (near, d) in enumerate(zip(even, degrees_of(pairs, range(20)), strict=True))
    ]
    silent = [evaluation.Told(k, 0, "Nothing.") for k in range(20)]
    table, _ = text_table(pairs, true, [*silent[:19], true[19]], CONFIG)
    assert table["true"]["value_accuracy"] == 0.5
    assert table["true"]["mae_temperature"] == pytest.approx((1.5 + 5) / 2, abs=1e-3)
    assert (table["true"]["values_stated"], table["true"]["values_checked"], table["texts"]) == (20, 20, 20)
    assert table["values_in_captions"] == 20
    assert table["true"]["value_accuracy_of"] == {"temperature": 0.5}
    assert (table["shuffled"]["values_stated"], table["shuffled"]["value_accuracy"]) == (1, 0)
    assert table["value_accuracy_gain"]["value"] == 0.5
    assert text_table(pairs, true, silent, CONFIG)[0]["value_accuracy_gain"] is None
