"""Scores of narrators that are known: what each condition is given, and the sign and size of gap and gain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.weather import SplitConfig, WindowConfig
from configs.weather_lm import JoinConfig, NarrationEvaluation
from models.weather.narrator import NarrationBatch
from storage.window_dataset import WindowDataset
from tasks.captions.placed import PlacedCaption
from tasks.captions.region_table import Box
from tasks.era5.training_set import build_training_set
from tasks.narration import evaluation
from tasks.narration.dataset import ControlledPairs, NarrationPairs
from tasks.narration.evaluation import evaluate_narrator, likelihood_table, likelihoods, text_table, write_texts
from tasks.narration.pairs import Windows, join
from tasks.text.tokens import Tokens
from tests.era5.stores import write_store

DAYS = 10
REGIONS: dict[str, Box] = {"West": (61.0, -5.0, 45.0, 175.0), "East": (61.0, 175.0, 45.0, 355.0)}
CONFIG = NarrationEvaluation(samples=20, texts=20, resamples=100)


def celsius(day: date, region: str) -> float:
    """Each region has a temperature of its own each day, no two of a region within the tolerance of 2 degrees."""
    return 4.0 * ((3 * day.day) % DAYS) + (1.0 if region == "East" else 0.0)


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
        mean, scale = self.pairs.windows.training_set.normalisation()
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
    """A window for each day and region, all of one temperature."""
    folder = tmp_path_factory.mktemp("narration")
    days = [date(2024, 1, 1 + k) for k in range(DAYS)]
    data = np.empty((24 * DAYS, 1, 16, 36), np.float32)
    for k, day in enumerate(days):
        data[24 * k : 24 * k + 24, :, :, :18] = 273.15 + celsius(day, "West")
        data[24 * k : 24 * k + 24, :, :, 18:] = 273.15 + celsius(day, "East")
    store = write_store(folder / "store", data, units={"t2m": "K"})
    sizes = WindowConfig(time=24, height=8, width=18, stride_time=24, stride_height=16, stride_width=18, anchor="first")
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


def release_of(pairs: NarrationPairs, **settings: Any) -> Any:
    return SimpleNamespace(network=KnownNarrator(pairs, **settings), tokens=Tokens(Letters(), begin=1, end=2))


def degrees_of(pairs: NarrationPairs, chosen: Sequence[int]) -> list[float]:
    return [celsius(pairs.pairs[k].date, str(pairs.pairs[k].region)) for k in chosen]


def letters(pairs: NarrationPairs) -> np.ndarray:
    """The tokens of each caption: its letters, a space before and the end after them."""
    return np.array([len(pair.texts[0]) + 2 for pair in pairs.pairs])


def test_each_condition_is_given_its_own_window(pairs: NarrationPairs) -> None:
    release = release_of(pairs)
    found = likelihoods(release, pairs, CONFIG)
    controls = ControlledPairs(pairs, CONFIG.samples, CONFIG.seed)
    own, other = degrees_of(pairs, controls.chosen), degrees_of(pairs, [controls.others[k] for k in controls.chosen])
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
    wrong = np.abs(np.subtract(degrees_of(pairs, controls.chosen), degrees_of(pairs, controls.others)))
    more = wrong.sum() / letters(pairs).sum()
    assert table["nats_per_token"] == pytest.approx({"true": 1, "shuffled": 1 + more, "blind": 3}, abs=1e-4)
    assert table["perplexity"] == pytest.approx(np.e, rel=1e-4)
    assert table["gap_to_shuffled"]["value"] == pytest.approx(more, abs=1e-4)
    assert 4 / 25 < table["gap_to_shuffled"]["low"] < more < table["gap_to_shuffled"]["high"] < 36 / 23
    assert table["gap_to_blind"] == pytest.approx({"value": 2, "low": 2, "high": 2}, abs=1e-4)
    assert (table["captions"], table["days"], table["tokens"]) == (20, 10, letters(pairs).sum())


def test_captions_of_one_day_are_drawn_together(pairs: NarrationPairs) -> None:
    """Two captions a day of which one needs as much more as the other needs less: no day differs from another."""
    found = likelihoods(release_of(pairs), pairs, CONFIG)
    east = np.array([pair.region == "East" for pair in pairs.pairs])
    found.tokens[:] = 10
    found.nats[0], found.nats[1] = 10, np.where(east, 30, 10)
    table = likelihood_table(found, CONFIG)
    assert table["gap_to_shuffled"] == pytest.approx({"value": 1, "low": 1, "high": 1})


def test_a_narrator_that_looks_gains_from_the_true_window(pairs: NarrationPairs) -> None:
    table, told = evaluate_narrator(release_of(pairs), pairs, CONFIG)
    assert (table["true"]["value_accuracy"], table["shuffled"]["value_accuracy"]) == (1, 0)
    assert table["value_accuracy_gain"] == {"value": 1, "low": 1, "high": 1}
    assert table["gap_to_shuffled"]["low"] > 0
    assert table["true"]["BLEU"] == pytest.approx(100)
    assert table["shuffled"]["BLEU"] < 90
    assert [t.text for t in told] == [pair.texts[0] for pair in pairs.pairs]


def test_a_narrator_that_does_not_look_gains_nothing(pairs: NarrationPairs) -> None:
    table, _ = evaluate_narrator(release_of(pairs, believes=torch.zeros_like), pairs, CONFIG)
    for measure in ("value_accuracy", "BLEU", "chrF", "mae_temperature"):
        assert table["true"][measure] == table["shuffled"][measure]
    assert table["value_accuracy_gain"] == table["gap_to_shuffled"] == {"value": 0, "low": 0, "high": 0}


def test_a_narrator_that_tells_the_weather_of_another_date_loses(pairs: NarrationPairs) -> None:
    """It is always so many degrees off, the number by which the shuffled window is off most often."""
    controls = ControlledPairs(pairs, CONFIG.samples, CONFIG.seed)
    off = np.subtract(degrees_of(pairs, range(20)), degrees_of(pairs, controls.others)) % 40
    most = np.bincount(off.astype(int)).argmax()
    table, _ = evaluate_narrator(release_of(pairs, believes=lambda seen: (seen + most) % 40), pairs, CONFIG)
    assert table["true"]["value_accuracy"] == 0
    assert table["shuffled"]["value_accuracy"] == np.mean(off == most) > 0
    assert table["value_accuracy_gain"]["value"] == pytest.approx(-np.mean(off == most))
    assert table["value_accuracy_gain"]["low"] < -np.mean(off == most) < table["value_accuracy_gain"]["high"]


def test_texts_are_written_from_the_windows_that_are_named(pairs: NarrationPairs) -> None:
    chosen = [(3, pairs.pairs[8].window), (8, pairs.pairs[8].window), (0, pairs.pairs[19].window)]
    told = write_texts(release_of(pairs), pairs, chosen, CONFIG)
    assert [(t.index, t.window) for t in told] == chosen
    assert [t.text for t in told] == [f"High of {d:.1f} °C, dry." for d in degrees_of(pairs, [8, 8, 19])]


def test_texts_of_both_conditions_are_of_as_many_pairs_as_asked_for_evenly_spaced(
    pairs: NarrationPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Any]] = []

    def kept(pairs: NarrationPairs, true: Any, shuffled: Any, config: NarrationEvaluation) -> dict[str, Any]:
        seen.extend([true, shuffled])
        return text_table(pairs, true, shuffled, config)

    monkeypatch.setattr(evaluation, "text_table", kept)
    config = CONFIG.model_copy(update={"texts": 5, "samples": 8})
    table, told = evaluate_narrator(release_of(pairs), pairs, config)
    true, shuffled = seen
    assert [t.index for t in true] == [t.index for t in shuffled] == [0, 4, 8, 12, 16]
    assert [t.window for t in true] == [pairs.pairs[k].window for k in (0, 4, 8, 12, 16)]
    for t in shuffled:
        (window,) = {pair.date for pair in pairs.pairs if pair.window == t.window}
        assert window != pairs.pairs[t.index].date
    assert told == true
    assert (table["captions"], table["texts"]) == (8, 5)


def test_a_text_counts_its_values_and_how_far_off_they_are(pairs: NarrationPairs) -> None:
    """Half of the narrator's highs are 1.5 degrees off, which is within the tolerance, and half 5, which is not."""
    even = [k % 2 == 0 for k in range(len(pairs.pairs))]
    true = [
        evaluation.Told(k, 0, f"High of {d + (1.5 if near else -5):.1f} °C.")
        for k, (near, d) in enumerate(zip(even, degrees_of(pairs, range(20)), strict=True))
    ]
    silent = [evaluation.Told(k, 0, "Nothing.") for k in range(20)]
    table = text_table(pairs, true, [*silent[:19], true[19]], CONFIG)
    assert table["true"]["value_accuracy"] == 0.5
    assert table["true"]["mae_temperature"] == pytest.approx((1.5 + 5) / 2, abs=1e-3)
    assert (table["true"]["values_stated"], table["true"]["values_checked"], table["texts"]) == (20, 20, 20)
    assert (table["shuffled"]["values_stated"], table["shuffled"]["value_accuracy"]) == (1, 0)
    assert table["value_accuracy_gain"]["value"] == 0.5
    assert text_table(pairs, true, silent, CONFIG)["value_accuracy_gain"] is None
