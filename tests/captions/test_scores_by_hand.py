"""Scores of captions in cases worked out by hand: tolerances, counts, sets, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sacrebleu

from tasks.captions.checks import SAMPLE_KEYS, ValueCounts, event_f1, region_f1, sample_truth, tolerance, value_accuracy
from tasks.captions.regions import Gazetteer
from tasks.samples.weather_statistics import STATISTICS
from tasks.text.metrics import bleu, chrf, cider, rouge_l, text_scores
from tests.captions.test_captions import cider_by_hand

TOLERANCES = {
    "temperature": 2, "sea temperature": 2, "wind": 2, "rain": 2, "rain rate": 2, "snow": 20, "pressure": 3,
    "wet area": 10, "fog time": 10, "sunlight": 10, "percent": 10, "latitude": 2, "longitude": 2,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "expected"), TOLERANCES.items())
def test_each_kind_has_its_tolerance_whatever_the_truth_is(kind, expected):
    for truth in (0.0, 5.0, -5.0):
        assert tolerance(kind, truth) == expected
    share = kind in ("rain", "rain rate", "snow")
    assert tolerance(kind, 200.0) == (40 if share else expected), "a fifth of large amounts of rain and snow"


@pytest.mark.parametrize(
    ("text", "key", "truth", "right"),
    [
        ("a maximum of 31 °C", ("temperature", "maximum"), 29.0, True),
        ("a maximum of 31 °C", ("temperature", "maximum"), 33.0, True),
        ("a maximum of 31 °C", ("temperature", "maximum"), 28.9, False),
        ("winds of up to 12 m/s", ("wind", "maximum"), 14.1, False),
        ("rainfall totals of up to 100 mm", ("rain", "maximum"), 84.0, True),
        ("rainfall totals of up to 100 mm", ("rain", "maximum"), 83.0, False),
        ("a deep low, 987 hPa at its lowest", ("pressure", "minimum"), 990.0, True),
        ("a deep low, 987 hPa at its lowest", ("pressure", "minimum"), 990.1, False),
    ],
)
def test_a_value_is_right_up_to_its_tolerance(text, key, truth, right):
    counts = value_accuracy(text, {key: truth})
    assert (counts.stated, counts.checked, counts.within) == (1, {key[0]: 1}, {key[0]: int(right)})


@pytest.mark.parametrize(("truth", "error"), [(-179.0, 2.0), (177.0, 2.0), (170.0, 9.0), (-1.0, 180.0), (1.0, 178.0)])
def test_longitudes_are_compared_the_short_way_round(truth, error):
    counts = value_accuracy("a low centred near 179°E", {("longitude", None): truth})
    assert counts.absolute_error == {"longitude": pytest.approx(error)}
    assert counts.within == {"longitude": int(error <= 2)}


def test_other_kinds_do_not_go_round():
    counts = value_accuracy("a deep low, 950 hPa at its lowest", {("pressure", "minimum"): 1000.0})
    assert counts.absolute_error == {"pressure": 50}
    far = value_accuracy("rainfall totals of up to 300 mm", {("rain", "maximum"): 0.0})
    assert far.absolute_error == {"rain": 300}


def test_counts_add_up_and_become_shares_by_kind_and_in_all():
    truth = {("temperature", "maximum"): 30.0, ("wind", "maximum"): 10.0}
    near = value_accuracy("a maximum of 31 °C", truth)
    far = value_accuracy("a maximum of 20 °C and winds of up to 11 m/s", truth)
    unknown = value_accuracy("rainfall totals of up to 2 mm", truth)
    total = sum([near, far, unknown], ValueCounts())
    assert (total.stated, total.checked) == (4, {"temperature": 2, "wind": 1})
    assert total.within == {"temperature": 1, "wind": 1}
    assert total.accuracy() == pytest.approx(2 / 3)
    assert total.accuracy("temperature") == 0.5
    assert total.accuracy("wind") == 1
    assert total.mean_absolute_error("temperature") == pytest.approx((1 + 10) / 2)
    for nothing in (total.accuracy("rain"), total.mean_absolute_error("rain"), ValueCounts().accuracy()):
        assert math.isnan(nothing)


@pytest.mark.parametrize("unknown", [math.nan, math.inf])
def test_what_is_no_number_is_nothing_to_compare_with(unknown):
    truth = {("rain", "maximum"): unknown, ("temperature", "maximum"): 30.0}
    total = value_accuracy("a maximum of 31 °C and rainfall totals of up to 24 mm", truth)
    assert (total.stated, total.checked, total.accuracy()) == (2, {"temperature": 1}, 1)
    assert "rain" not in total.absolute_error


def test_every_statistic_of_the_sample_weather_that_texts_tell_has_a_name_there():
    assert set(SAMPLE_KEYS) <= set(STATISTICS)
    assert sample_truth({"t_max": 3.0, "unheard of": 4.0}) == {("temperature", "maximum"): 3.0}


def test_sets_are_compared_over_all_samples_together():
    """Rain and fog told where rain and snow fell, and nothing where it rained: 1 of 2, and 1 of 3."""
    score = event_f1([("rain and fog", ["rain", "snow"]), ("nothing to tell", ["rain"])])
    assert score.common.tolist() == [1, 0]
    assert score.predicted.tolist() == [2, 0]
    assert score.actual.tolist() == [2, 1]
    assert (score.precision, score.recall, score.f1) == pytest.approx((1 / 2, 1 / 3, 2 / 5))
    nothing = event_f1([("nothing to tell", ["nothing to tell"])])
    assert all(math.isnan(value) for value in (nothing.precision, nothing.recall, nothing.f1))
    assert event_f1([]).f1 != event_f1([]).f1


def test_regions_are_those_that_are_named():
    score = region_f1([("rain over Japan and Spain", ["rain over Japan"])], Gazetteer.world())
    assert (score.precision, score.recall) == (0.5, 1.0)


def test_scores_of_single_samples_are_sacrebleus_for_sentences():
    pairs = [("heavy rain", ["heavy rain fell"]), ("a dry and sunny day here", ["a dry day", "a dry and sunny day"])]
    for k, (text, references) in enumerate(pairs):
        assert bleu(pairs).samples[k] == pytest.approx(sacrebleu.sentence_bleu(text, references).score)
        assert chrf(pairs).samples[k] == pytest.approx(sacrebleu.sentence_chrf(text, references).score)
    assert bleu(pairs).samples[0] > 0, "a text of two words has no 4-gram and still a score"


def test_rouge_l_is_of_the_best_reference():
    """3 words of 4 in common with the second one, in order: precision 3/4, recall 3/3."""
    (sample,) = rouge_l([("rain then some wind", ["snow", "rain then wind"])]).samples
    assert sample == pytest.approx(2 * 0.75 * 1 / (0.75 + 1))


def test_cider_d_counts_words_that_nearly_all_samples_have():
    """Their weights are so small that the norm of a text of theirs is far below 1."""
    pairs = [(f"rain in {place}", [f"rain in {place}", "some rain"]) for place in ("a", "b", "c", "d", "e")]
    pairs += [("rain in", ["rain in the f f f"]), ("fog", ["fog and mist"])]
    np.testing.assert_allclose(cider(pairs).samples, cider_by_hand(pairs), atol=1e-9)


def test_a_text_without_words_is_like_none():
    samples = cider([("", ["rain"]), ("", [""]), ("rain in Spain", ["rain in Spain"])]).samples
    assert samples[:2].tolist() == [0, 0]


@pytest.mark.parametrize("score", [bleu, chrf, rouge_l, cider])
def test_samples_without_references_are_refused(score):
    with pytest.raises(ValueError, match="sample 1 has no list of reference texts"):
        score([("rain", ["rain"]), ("rain", [])])
    with pytest.raises(ValueError, match="sample 0 has no list of reference texts"):
        score([("rain", "rain"), ("rain", ["rain"])])
    with pytest.raises(ValueError, match="there are no texts"):
        score([])


def test_all_scores_have_their_names_and_say_how_they_are_made():
    found = text_scores([("rain", ["rain"]), ("a dry day with some wind", ["a dry day with some wind"])])
    assert list(found) == ["BLEU", "chrF", "ROUGE-L", "CIDEr-D"]
    assert found["BLEU"].corpus == pytest.approx(100)
    assert found["chrF"].corpus == pytest.approx(100)
    assert all(score.signature for score in found.values())
