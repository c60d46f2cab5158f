"""Captions of any seen shape, their places, their numbers, and scores of texts."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import pytest
import sacrebleu

from configs.weather import SampleSource
from configs.weather_lm import CaptionFiles
from tasks.captions.checks import sample_truth, value_accuracy
from tasks.captions.events import events
from tasks.captions.gather import caption_files, find_captions, weather_captions
from tasks.captions.numbers import quantities
from tasks.captions.placed import load_placed
from tasks.captions.read import read_captions
from tasks.captions.regions import Gazetteer, load_regions, overlap
from tasks.intervals import Sums, paired_bootstrap
from tasks.progress import Silent
from tasks.samples.weather_captions import day_captions
from tasks.samples.weather_units import sample_units
from tasks.session import Session
from tasks.stage import Label, raw_input
from tasks.text.metrics import bleu, chrf, cider, rouge_l


def write(tmp_path, text, name="a.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_plain_texts_json_lists_and_the_misspelt_key_are_read(tmp_path):
    plain = write(tmp_path, 'date,location,event description\n2023-06-02,Tokyo,"high 23°C, rain"\n')
    listed = write(
        tmp_path,
        '\ndate,description\n2024-05-01,"[{""region"": ""East Asia"", ""descrpition"": ""rain  fell""}]"\n',
        "b.csv",
    )
    found = read_captions([plain, listed]).captions
    assert [(c.date, c.region, c.text) for c in found] == [
        (date(2023, 6, 2), "Tokyo", "high 23°C, rain"),
        (date(2024, 5, 1), "East Asia", "rain fell"),
    ]
    assert found[1].source.endswith("b.csv:3")


def test_what_cannot_be_used_is_counted_by_reason_with_its_line(tmp_path):
    path = write(
        tmp_path, 'date,text\nyesterday,rain\n2024-01-01,\n2024-01-02,"[{""a"""\n2024-01-03,sun\n2024-01-03,sun\n'
    )
    found = read_captions([path])
    assert [c.text for c in found.captions] == ["sun"]
    assert found.duplicates == 1
    places = {place.rsplit(":", 1)[1]: reason for reason, listed in found.unusable.items() for place in listed}
    assert places.keys() == {"2", "3", "4"}
    assert "date" in places["2"]
    assert "JSON" in places["4"]


def test_a_file_without_a_date_or_text_column_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"a\.csv has no date column: its header is 'when', 'text'"):
        read_captions([write(tmp_path, "when,text\n2024-01-01,rain\n")])


def test_every_real_file_is_read(era5_data):
    files = sorted((era5_data / "captions").glob("*.csv"))
    found = read_captions(files)
    assert len({c.date for c in found.captions}) > 150
    gazetteer = Gazetteer.world()
    placed = [gazetteer.find(c.region, c.text) for c in found.captions]
    assert sum(box is not None for box in placed) / len(placed) > 0.9
    assert gazetteer.find("Tokyo") is not None


def test_regions_are_found_whatever_their_spelling_and_sides_are_parts():
    world = Gazetteer.world()
    europe = world.find("Europe")
    assert europe is not None
    assert world.find("the EUROPE") == europe
    assert world.find("much of Northern-Europe") == world.find("north Europe") != europe
    assert world.find("300 cm") is None
    assert world.find("300 cm", "heavy snow over Japan") == world.find("Japan")
    own = world.extended({"Atlantis": (10.0, 170.0, 0.0, -170.0)})
    assert own.find("atlantis") == (10.0, 170.0, 0.0, -170.0)


@pytest.mark.parametrize(("region", "text"), [
    ("Jordan", "Hot air from Saudi Arabia reached the country"),
    ("Slovenia", "Rain moved in from Italy"),
    ("West Virginia", "Rain came up from Tennessee"),
    ("Indiana", "storms over Illinois"),
    ("New Hampshire", "Snow from New York"),
    ("Guinea", "Storms reached Papua New Guinea"),
    ("Slovenia, east", "Italy had rain"),
    ("300 km of Slovenia", "Rain moved in from Italy"),
])  # fmt: skip
def test_an_unknown_name_is_no_other_place_that_its_text_mentions(region, text):
    world = Gazetteer.world()
    assert world.find(None, text) is not None
    assert world.find(region, text) is None


@pytest.mark.parametrize(("region", "text", "place"), [
    (None, "Rain in Italy", "Italy"),
    ("", "Rain in Italy", "Italy"),
    ("Unknown", "Rain in Italy", "Italy"),
    ("N/A", "Rain in Italy", "Italy"),
    ("36 °F (2 °C)", "A cold night in Italy", "Italy"),
    ("parts of the north", "It rained, in Italy", "Italy"),
    ("East", "of South America had showers", "eastern South America"),
    ("much", "Dry across much of South America", "South America"),
    ("Horn", "of Africa had showers", "Horn of Africa"),
])  # fmt: skip
def test_a_region_without_a_name_is_read_with_its_text(region, text, place):
    world = Gazetteer.world()
    assert world.find(region, text) == world.find(place) is not None


def test_a_caption_of_an_unknown_region_has_no_place_and_is_told(tmp_path, store):
    told = []

    class Told(Silent):
        def message(self, text):
            told.append(text)

    rows = 'date,region,text\n2024-01-01,Jordan,"Hot air from Saudi Arabia"\n2024-01-01,Japan,Snow\n'
    source = CaptionFiles(paths=(str(write(tmp_path, rows)),))
    with Session(store, Told()).active():
        raw = raw_input("captions", find_captions(source))
        asset = weather_captions(raw=raw, names=caption_files(raw), columns={}, boxes={}, label=Label("windows"))
    assert {caption.region for caption in load_placed(asset.folder) if caption.box is None} == {"Jordan"}
    assert (asset.manifest.counts["captions"], asset.manifest.counts["placed"]) == (2, 1)
    assert "1 regions have no known place: Jordan" in told


def test_overlaps_are_shares_of_area_also_across_the_date_line():
    assert overlap((10, 0, 0, 10), (10, 0, 0, 10)) == pytest.approx((1, 1))
    assert overlap((10, 0, 0, 10), (10, 20, 0, 30)) == (0, 0)
    of_window, of_box = overlap((10, 170, -10, -170), (10, 175, -10, 180))
    assert (of_window, of_box) == pytest.approx((1, 0.25))


def test_boxes_of_ones_own_are_read_and_bad_ones_refused(tmp_path):
    good = write(tmp_path, "region,north,west,south,east\nHome,50,7,47,11\n")
    assert load_regions(good) == {"Home": (50.0, 7.0, 47.0, 11.0)}
    with pytest.raises(ValueError, match="boxes"):
        load_regions(write(tmp_path, "region,north,west,south,east\nHome,47,7,50,11\n", "boxes.csv"))


@pytest.mark.parametrize(
    ("text", "kind", "statistic", "value"),
    [
        ("a maximum of 31 °C", "temperature", "maximum", 31.0),
        ("lows of -7 °C", "temperature", "minimum", -7.0),
        ("maximum temperature reached 50 °F", "temperature", "maximum", 10.0),
        ("winds of up to 36 km/h", "wind", "maximum", 10.0),
        ("rainfall totals of up to 2 inches", "rain", "maximum", 50.8),
        ("a deep low, 987 hPa at its lowest", "pressure", "minimum", 987.0),
    ],
)
def test_quantities_are_read_in_canonical_units(text, kind, statistic, value):
    (found,) = quantities(text)
    assert (found.kind, found.statistic) == (kind, statistic)
    assert found.value == pytest.approx(value, abs=0.01)


def test_every_number_of_the_generators_captions_is_true_of_its_statistics():
    source = SampleSource(days=12, step_hours=6, resolution=2.0)
    stated = checked = right = 0
    for unit in sample_units(source):
        for said in day_captions(source, unit) if unit.kind == "captions" else ():
            for region, (text,) in said.descriptions.items():
                counts = value_accuracy(text, sample_truth(said.statistics[region]))
                stated += counts.stated
                checked += sum(counts.checked.values())
                right += sum(counts.within.values())
    assert stated > 300
    assert checked > 0.95 * stated
    assert right == checked


def test_events_are_found_by_their_words():
    assert {"rain", "tropical cyclone"} <= events("Typhoon 7 brought torrential rain")
    assert "rain" not in events("it stayed dry")


PAIRS = [
    ("heavy rain and strong winds in the north", ["heavy rain and gales in the north", "strong winds, heavy rain"]),
    ("a dry and sunny day", ["a dry day with sunny spells"]),
    ("fog in the morning", ["mist or fog early in the morning"]),
]


def test_bleu_and_chrf_are_sacrebleus():
    texts = [text for text, _ in PAIRS]
    streams = [[refs[0] for _, refs in PAIRS], [refs[1] if len(refs) > 1 else None for _, refs in PAIRS]]
    assert bleu(PAIRS).corpus == pytest.approx(sacrebleu.corpus_bleu(texts, streams).score)
    assert chrf(PAIRS).corpus == pytest.approx(sacrebleu.corpus_chrf(texts, streams).score)
    assert rouge_l([("a b c", ["a b c"])]).corpus == 1


def cider_by_hand(pairs):
    """Vedantam et al. 2015, CIDEr-D, written out with dictionaries."""

    def grams(text, n):
        words = text.split()
        found = {}
        for k in range(len(words) - n + 1):
            gram = tuple(words[k : k + n])
            found[gram] = found.get(gram, 0) + 1
        return found

    scores = []
    for text, references in pairs:
        total = 0.0
        for reference in references:
            for n in (1, 2, 3, 4):
                documents = [set().union(*(grams(r, n) for r in refs)) for _, refs in pairs]

                def weigh(counts, documents=documents):
                    return {
                        g: c * (math.log(len(pairs)) - math.log(max(1, sum(g in d for d in documents))))
                        for g, c in counts.items()
                    }

                a, b = weigh(grams(text, n)), weigh(grams(reference, n))
                norm = math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))
                if norm:
                    product = sum(min(a[g], b[g]) * b[g] for g in a.keys() & b.keys())
                    gap = len(text.split()) - len(reference.split())
                    total += product / norm * math.exp(-(gap**2) / 72) / 4 / len(references)
        scores.append(10 * total)
    return scores


OF_PYCOCOEVALCAP = [3.32054973, 2.35186615, 2.90286847]
"""CIDEr-D of the pairs, without commas, by pycocoevalcap 1.2."""


def test_cider_d_is_that_of_the_paper_and_of_the_coco_evaluation():
    plain = [(text.replace(",", ""), [r.replace(",", "") for r in refs]) for text, refs in PAIRS]
    found = cider(plain)
    np.testing.assert_allclose(found.samples, cider_by_hand(plain), atol=1e-9)
    np.testing.assert_allclose(found.samples, OF_PYCOCOEVALCAP, atol=1e-8)
    assert found.corpus == pytest.approx(np.mean(found.samples))


def test_the_paired_bootstrap_sees_a_constant_difference_without_spread():
    weights = np.array([3.0, 5.0, 2.0, 7.0])
    sums = np.array([6.0, 9.0, 5.0, 10.0])
    estimate = paired_bootstrap(Sums(sums + 0.5 * weights, weights), Sums(sums, weights))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.5, 0.5, 0.5))
