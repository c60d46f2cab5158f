"""Scores against plain loops over pixels, torchmetrics, and cases worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.fire.bootstrap import resampled_measures
from tasks.fire.scores import (
    BINS,
    SampleHistograms,
    Scorer,
    average_precision,
    choose_threshold,
    confusion,
    fire_lengths,
    fire_sizes,
    measures,
    precision_recall,
    reliability,
    size_classes,
)
from tasks.intervals import Estimate, Resamples

Picture = dict[str, np.ndarray]


def interval(histograms: SampleHistograms, name: str, resamples: int = 200, seed: int = 0) -> Estimate:
    drawn = Resamples.draw(histograms.fires, resamples, seed)
    return resampled_measures(drawn, [(histograms, 0.5)], 16)[name].estimate()


def random_samples(seed: int = 0, fires: int = 5, skill: float = 0.4) -> list[tuple[int, int, Picture]]:
    """Fires of 2 to 4 frames on crops of different size; the last sample of each fire stands still."""
    random = np.random.default_rng(seed)
    samples = []
    for fire in range(fires):
        shape = tuple(random.integers(8, 20, 2))
        domain = random.random(shape) < 0.9
        burnt = (random.random(shape) < 0.1) & domain
        steps = int(random.integers(2, 5))
        for step in range(steps):
            following = burnt if step == steps - 1 else burnt | ((random.random(shape) < 0.2) & domain)
            noise = random.random(shape)
            probability = np.where(burnt, 1.0, skill * following + (1 - skill) * noise).astype(np.float32)
            picture = {"probability": probability, "target": following, "last": burnt, "domain": domain}
            samples.append((fire * 7, step, picture))
            burnt = following
    return samples


def score(samples: list[tuple[int, int, Picture]]) -> SampleHistograms:
    scorer = Scorer()
    for fire, step, picture in samples:
        scorer.add(**picture, fire=fire, step=step)
    return scorer.histograms()


def one(measured: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(value[0]) for name, value in measured.items()}


def by_hand(samples: list[tuple[int, int, Picture]], threshold: float) -> dict[str, float]:
    """The same measures by loops over pixels, straight from their definitions."""
    hits = false = missed = grown_hits = grown_false = grown_missed = 0
    squared = grown_squared = pixels = grown_pixels = 0.0
    f1s, later, ious, growth_f1s, alarms, alarm_pixels = [], [], [], [], [], []
    for _, step, p in samples:
        tp = fp = fn = gtp = gfp = gfn = 0
        for row, column in zip(*np.nonzero(p["domain"]), strict=True):
            value, truth = float(p["probability"][row, column]), bool(p["target"][row, column])
            predicted, new = value >= threshold, not p["last"][row, column]
            tp, fp, fn = tp + (predicted and truth), fp + (predicted and not truth), fn + (truth and not predicted)
            squared, pixels = squared + (value - truth) ** 2, pixels + 1
            if new:
                gtp, gfp, gfn = (
                    gtp + (predicted and truth),
                    gfp + (predicted and not truth),
                    gfn + (not predicted and truth),
                )
                grown_squared, grown_pixels = grown_squared + (value - truth) ** 2, grown_pixels + 1
        hits, false, missed = hits + tp, false + fp, missed + fn
        grown_hits, grown_false, grown_missed = grown_hits + gtp, grown_false + gfp, grown_missed + gfn
        f1s.append(2 * tp / (2 * tp + fp + fn))
        ious.append(tp / (tp + fp + fn))
        if step > 0:
            later.append(f1s[-1])
        if gtp + gfn:
            growth_f1s.append(2 * gtp / (2 * gtp + gfp + gfn))
        else:
            alarms.append(gfp > 0)
            alarm_pixels.append(gfp)
    return {
        "precision": hits / (hits + false),
        "recall": hits / (hits + missed),
        "f1": 2 * hits / (2 * hits + false + missed),
        "iou": hits / (hits + false + missed),
        "growth_precision": grown_hits / (grown_hits + grown_false),
        "growth_recall": grown_hits / (grown_hits + grown_missed),
        "growth_f1": 2 * grown_hits / (2 * grown_hits + grown_false + grown_missed),
        "growth_iou": grown_hits / (grown_hits + grown_false + grown_missed),
        "macro_f1": np.mean(f1s),
        "macro_f1_later": np.mean(later),
        "macro_iou": np.mean(ious),
        "macro_growth_f1": np.mean(growth_f1s),
        "false_growth_rate": np.mean(alarms),
        "false_growth_pixels": np.mean(alarm_pixels),
        "brier": squared / pixels,
        "growth_brier": grown_squared / grown_pixels,
    }


@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.75])
def test_every_measure_equals_loops_over_pixels(threshold: float) -> None:
    samples = random_samples()
    measured = one(measures(score(samples), threshold, 16))
    expected = by_hand(samples, threshold)
    assert {name: measured[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    assert set(measured) - set(expected) == {"ap", "growth_ap", "growth_ece"}


def growth_pixels(samples: list[tuple[int, int, Picture]]) -> tuple[np.ndarray, np.ndarray]:
    chosen = [(p["domain"] & ~p["last"]) for _, _, p in samples]
    probability = np.concatenate([p["probability"][c] for (_, _, p), c in zip(samples, chosen, strict=True)])
    return probability, np.concatenate([p["target"][c] for (_, _, p), c in zip(samples, chosen, strict=True)])


def test_average_precision_equals_torchmetrics() -> None:
    import torch
    from torchmetrics.functional.classification import binary_average_precision

    samples = random_samples(fires=8)
    probability, truth = growth_pixels(samples)
    measured = one(measures(score(samples), 0.5, 16))
    coarse = torch.from_numpy(np.floor(probability * BINS) / BINS)
    assert measured["growth_ap"] == pytest.approx(
        float(binary_average_precision(coarse, torch.from_numpy(truth).long()))
    )
    exact = float(binary_average_precision(torch.from_numpy(probability), torch.from_numpy(truth).long()))
    assert measured["growth_ap"] == pytest.approx(exact, abs=0.01)


def test_calibration_equals_torchmetrics_and_its_definition() -> None:
    samples = random_samples(fires=6, skill=0.3)
    probability, truth = growth_pixels(samples)
    bins = np.minimum((probability.astype(float) * 16).astype(int), 15)
    gaps = [
        abs(truth[bins == b].mean() - probability[bins == b].mean()) * (bins == b).mean() for b in set(bins.tolist())
    ]
    histograms = score(samples)
    assert one(measures(histograms, 0.5, 16))["growth_ece"] == pytest.approx(sum(gaps), rel=1e-5)
    curve = reliability(histograms, 16)
    for b in range(16):
        assert curve["pixels"][b] == (bins == b).sum()
        if curve["pixels"][b]:
            assert curve["burnt_share"][b] == pytest.approx(truth[bins == b].mean())
            assert curve["probability"][b] == pytest.approx(probability[bins == b].mean(), rel=1e-5)
        else:
            assert np.isnan(curve["burnt_share"][b])


def test_a_confident_liar_is_badly_calibrated() -> None:
    truth = np.zeros((10, 10), bool)
    truth[:5] = True
    nothing, everywhere = np.zeros_like(truth), np.ones_like(truth)
    for claimed, expected in ((0.5, 0.0), (0.9, 0.4)):
        picture = {"probability": np.full(truth.shape, claimed), "target": truth, "last": nothing, "domain": everywhere}
        assert one(measures(score([(0, 0, picture)]), 0.5, 16))["growth_ece"] == pytest.approx(expected)


def test_precision_recall_curve_is_the_confusion_at_each_threshold() -> None:
    histograms = score(random_samples())
    curve = precision_recall(histograms)
    for index in (0, 100, 200):
        hits, false, missed = (c.sum() for c in confusion(histograms, curve["threshold"][index], growth=True))
        assert curve["recall"][index] == pytest.approx(hits / (hits + missed))
        if hits + false:
            assert curve["precision"][index] == pytest.approx(hits / (hits + false))


def square(last: str, target: str, probability: list[float], domain: str = "1111") -> Picture:
    flags = [np.array([list(text[:2]), list(text[2:])]) == "1" for text in (last, target, domain)]
    return {
        "probability": np.array(probability, np.float32).reshape(2, 2),
        "target": flags[1],
        "last": flags[0],
        "domain": flags[2],
    }


def test_a_case_worked_out_by_hand() -> None:
    samples = [
        (0, 0, square("1000", "1100", [1, 0.9, 0.6, 0.0])),  # one hit, one false alarm
        (0, 1, square("1100", "1100", [1, 1, 0.2, 0.5])),  # stands still; 0.5 counts as predicted
        (3, 0, square("1000", "1110", [1, 0.4, 0.9, 0.9], "1110")),  # one miss, one hit; the last pixel is outside
    ]
    measured = one(measures(score(samples), 0.5, 16))
    assert measured["growth_precision"] == pytest.approx(2 / 4)
    assert measured["growth_recall"] == pytest.approx(2 / 3)
    assert measured["macro_growth_f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)  # the still sample is no zero
    assert measured["false_growth_rate"] == 1
    assert measured["false_growth_pixels"] == 1
    assert measured["macro_f1_later"] == pytest.approx(4 / 5)
    assert measured["iou"] == pytest.approx((2 + 2 + 2) / (3 + 3 + 3))


def test_copying_has_no_growth_and_no_false_growth() -> None:
    samples = [(f, s, {**p, "probability": p["last"].astype(np.float32)}) for f, s, p in random_samples()]
    measured = one(measures(score(samples), 0.5, 16))
    assert measured["growth_f1"] == 0
    assert np.isnan(measured["growth_precision"])
    assert measured["precision"] == 1
    assert measured["false_growth_rate"] == 0


def test_what_is_undefined_stays_undefined() -> None:
    still = score([(0, 0, square("1000", "1000", [1, 0, 0, 0]))])
    measured = one(measures(still, 0.5, 16))
    for name in ("growth_f1", "growth_recall", "growth_ap", "macro_growth_f1", "macro_f1_later"):
        assert np.isnan(measured[name]), name
    alarmed = one(measures(score([(0, 0, square("1000", "1000", [1, 1, 0, 0]))]), 0.5, 16))
    assert np.isnan(alarmed["growth_f1"]), "false growth has a rate of its own and is no growth-F1 of 0"
    assert alarmed["false_growth_pixels"] == 1
    growing = score([(0, 0, square("1000", "1100", [1, 1, 0, 0]))])
    assert np.isnan(one(measures(growing, 0.5, 16))["false_growth_rate"])
    assert np.isnan(average_precision(np.zeros((2, BINS))))
    assert interval(still, "growth_f1").json() == {"value": None, "low": None, "high": None}


def test_shuffled_predictions_score_worse() -> None:
    samples = random_samples(fires=8)
    random = np.random.default_rng(1)
    shuffled = [
        (f, s, {**p, "probability": random.permuted(p["probability"].ravel()).reshape(p["last"].shape)})
        for f, s, p in samples
    ]
    good, bad = (one(measures(score(s), 0.5, 16)) for s in (samples, shuffled))
    for name in ("f1", "iou", "ap", "macro_f1", "growth_f1", "growth_ap", "macro_growth_f1"):
        assert bad[name] < good[name] - 0.1, name
    assert bad["brier"] > good["brier"]


def test_pixels_outside_the_domain_never_count() -> None:
    samples = random_samples()
    random = np.random.default_rng(2)
    other = [
        (
            f,
            s,
            {
                **p,
                **{
                    n: np.where(p["domain"], p[n], random.random(p["domain"].shape) > 0.5)
                    for n in ("probability", "target", "last")
                },
            },
        )
        for f, s, p in samples
    ]
    first, second = score(samples), score(other)
    assert np.array_equal(first.counts, second.counts)
    assert np.array_equal(first.squared_error, second.squared_error)


@pytest.mark.parametrize("broken", [np.nan, -0.1, 1.5])
def test_a_broken_prediction_is_refused(broken: float) -> None:
    with pytest.raises(ValueError, match=r"fire 4, step 2 is not within 0\.\.1"):
        Scorer().add(**square("1000", "1100", [1, broken, 0, 0]), fire=4, step=2)


def test_the_threshold_has_the_best_growth_f1_and_is_frozen() -> None:
    validation, test = score(random_samples(3)), score(random_samples(4))
    threshold = choose_threshold(validation)
    f1s = [one(measures(validation, k / BINS, 16))["growth_f1"] for k in range(1, BINS)]
    assert one(measures(validation, threshold, 16))["growth_f1"] == pytest.approx(max(f1s))
    assert one(measures(test, threshold, 16))["growth_f1"] <= max(
        one(measures(test, k / BINS, 16))["growth_f1"] for k in range(1, BINS)
    )
    copied = score([(f, s, {**p, "probability": p["last"].astype(float)}) for f, s, p in random_samples()])
    assert choose_threshold(copied) == 0.5


def test_fires_have_a_length_and_a_size() -> None:
    samples = random_samples()
    histograms = score(samples)
    for index, (fire, _, _) in enumerate(samples):
        own = [(s, p) for f, s, p in samples if f == fire]
        assert fire_lengths(histograms)[index] == max(s for s, _ in own) + 2
        assert fire_sizes(histograms)[index] == max((p["target"] & p["domain"]).sum() for _, p in own)
    classes = size_classes(np.array([10, 150, 999, 1000]), [150, 1000])
    assert {name: chosen.tolist() for name, chosen in classes.items()} == {
        "0-149 px": [True, False, False, False],
        "150-999 px": [False, True, True, False],
        ">= 1000 px": [False, False, False, True],
    }


def test_bootstrap_resamples_fires_and_is_determined_by_its_seed() -> None:
    samples = random_samples(fires=6)
    histograms = score(samples)
    weights = Resamples.draw(histograms.fires, 200, 5).weights
    assert (weights.sum(axis=1) == 6).all()
    replicates = measures(histograms, 0.5, 16, weights)
    for row in (0, 17, 101):  # a resample equals the scores of the drawn fires, repeated
        drawn = [
            (copy * 1000 + fire, step, p)
            for position, times in enumerate(weights[row])
            for copy in range(times)
            for fire, step, p in samples
            if fire == histograms.fires[position]
        ]
        expected = one(measures(score(drawn), 0.5, 16))
        assert {name: values[row] for name, values in replicates.items()} == pytest.approx(expected, nan_ok=True)
    first, again, other = (interval(histograms, "growth_f1", seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert first.low < first.value < first.high


def test_paired_differences_share_their_fires() -> None:
    good, bad = score(random_samples(fires=12, skill=0.45)), score(random_samples(fires=12, skill=0.3))
    assert not np.array_equal(good.counts, bad.counts)
    drawn = Resamples.draw(good.fires, 300, 0)
    first, second = (resampled_measures(drawn, [(h, 0.5)], 16)["growth_f1"] for h in (good, bad))
    gain = (first - second).estimate()
    assert gain.value == pytest.approx(first.value - second.value)
    assert gain.low > 0
    assert gain.high - gain.low < first.estimate().high - second.estimate().low - (first.value - second.value)
    nothing = (first - first).estimate()
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
    both = resampled_measures(drawn, [(good, 0.5), (bad, 0.5)], 16)["growth_f1"]
    assert both.value == pytest.approx((first.value + second.value) / 2)
    assert both.replicates == pytest.approx((first.replicates + second.replicates) / 2)
    with pytest.raises(ValueError, match="same samples"):
        resampled_measures(drawn, [(good, 0.5), (bad.select(bad.step > 0), 0.5)], 16)


def test_histograms_survive_a_file(tmp_path: Path) -> None:
    histograms = score(random_samples())
    histograms.save(tmp_path / "one.safetensors")
    histograms.save(tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    loaded = SampleHistograms.load(tmp_path / "one.safetensors")
    assert np.array_equal(loaded.counts, histograms.counts)
    assert one(measures(loaded, 0.5, 16)) == pytest.approx(one(measures(histograms, 0.5, 16)), nan_ok=True)


@pytest.mark.parametrize("field", ["fire", "step"])
def test_runs_on_other_fires_or_other_steps_are_not_compared(field: str) -> None:
    good = score(random_samples(fires=6))
    other = replace(good, **{field: getattr(good, field)[::-1].copy()})
    drawn = Resamples.draw(good.fires, 10, 0)
    with pytest.raises(ValueError, match="same samples"):
        resampled_measures(drawn, [(good, 0.5), (other, 0.5)], 16)
