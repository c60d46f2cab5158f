"""Dilation against loops over pixels, and on the shared archive."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.fire.dilation import (
    Dilation,
    DilationPredictor,
    SpreadState,
    copy_last,
    downwind,
    fit_dilations,
    spread_states,
    tune_dilations,
)
from tests.fire.fire_batches import SPEC, pad, random_batch, with_garbage

UNBURNABLE = (-9999, 0, 91, 92, 93, 98, 99)


def brute_force(state: SpreadState, dilation: Dilation) -> np.ndarray:
    """Burn every burnable pixel within reach of a moved burnt pixel, by loops."""
    reach = dilation.radius + dilation.radius_per_wind * state.wind_speed
    rows, columns = (round(dilation.shift_per_wind * state.wind_speed * part) for part in state.downwind)
    result = state.last.copy()
    sources = [(r + rows, c + columns) for r, c in zip(*np.nonzero(state.last), strict=True)]
    for row, column in np.ndindex(state.last.shape):
        near = any((row - r) ** 2 + (column - c) ** 2 <= reach**2 for r, c in sources)
        result[row, column] |= near and state.burnable[row, column]
    return result


@pytest.mark.parametrize("dilation", [Dilation(0), Dilation(3), Dilation(2.5), Dilation(1, 0.2), Dilation(2, 0.1, 0.4)])
def test_dilation_equals_loops_over_pixels(dilation: Dilation) -> None:
    random = np.random.default_rng(0)
    for angle in np.deg2rad([0, 50, 140, 260]):
        last = random.random((17, 23)) < 0.01
        last[8, 0] = last[0, 11] = True  # the moved area may leave the crop
        burnable = random.random(last.shape) < 0.8
        state = SpreadState(last, burnable, 9.0, downwind(np.sin(angle), np.cos(angle)))
        assert np.array_equal(dilation.probability(state) >= 0.5, brute_force(state, dilation))


def test_wind_from_the_north_carries_fire_to_the_south() -> None:
    last = np.zeros((21, 21), bool)
    last[10, 10] = True
    everywhere = np.ones_like(last)
    for degrees, (row, column) in {0: (14, 10), 90: (10, 6), 180: (6, 10), 270: (10, 14)}.items():
        angle = np.deg2rad(degrees)
        state = SpreadState(last, everywhere, 10.0, downwind(np.sin(angle), np.cos(angle)))
        burnt = Dilation(1.0, 0.0, 0.4).probability(state) >= 0.5
        assert np.argwhere(burnt & ~last).mean(axis=0) == pytest.approx((row, column))


def test_nothing_burns_without_a_fire() -> None:
    nothing = np.zeros((5, 5), bool)
    assert not (Dilation(3).probability(SpreadState(nothing, ~nothing, 5.0, (1.0, 0.0))) > 1e-6).any()


def states(truth: Dilation, seed: int) -> Iterator[tuple[SpreadState, np.ndarray]]:
    random = np.random.default_rng(seed)
    for _ in range(12):
        last = np.zeros((50, 60), bool)
        last[random.integers(15, 35), random.integers(15, 45)] = True
        burnable = random.random(last.shape) < 0.9
        angle = random.uniform(0, 2 * np.pi)
        state = SpreadState(last, burnable, random.uniform(5, 30), downwind(np.sin(angle), np.cos(angle)))
        yield state, (truth.probability(state) >= 0.5) & ~last


def test_tuning_finds_the_rule_that_made_the_fires() -> None:
    grid = {"radii": (1, 3, 5, 7), "radius_per_wind": (0.0, 0.2, 0.4), "shift_per_wind": (0.0, 0.15, 0.3)}
    truth = Dilation(3.0, 0.2, 0.15)
    isotropic, aware = tune_dilations(states(truth, 0), **grid)
    assert aware == truth
    assert isotropic.radius_per_wind == isotropic.shift_per_wind == 0
    f1 = {}
    for radius in grid["radii"]:
        hits = false = growth = 0
        for state, new in states(truth, 0):
            predicted = brute_force(state, Dilation(radius)) & ~state.last
            hits, false, growth = hits + (predicted & new).sum(), false + (predicted & ~new).sum(), growth + new.sum()
        f1[radius] = 2 * hits / (hits + false + growth)
    assert isotropic.radius == max(f1, key=f1.__getitem__)
    with pytest.raises(ValueError, match="no training fire grows"):
        tune_dilations([(s, np.zeros_like(new)) for s, new in states(truth, 0)], **grid)


def test_predictor_reads_wind_fuel_and_domain_from_a_batch() -> None:
    batch = random_batch(((5, 6), (4, 3)), seed=3)
    batch.wind_valid[-1, -1] = False
    predict = DilationPredictor(Dilation(2.0, 0.1, 0.6), SPEC)
    scores = predict(batch)
    assert scores.shape == batch.age.shape
    mean, std = SPEC.wind_scale
    for i in range(len(batch)):
        known = bool(batch.wind_valid[i, -1])
        speed, sin, cos = batch.wind[i, -1].tolist()
        state = SpreadState(
            (batch.burnt[i] & batch.domain[i]).numpy(),
            batch.burnable[i].numpy(),
            max(mean + std * speed, 0.0) if known else mean,
            (cos, -sin) if known else (0.0, 0.0),
        )
        assert np.array_equal(scores[i].numpy() >= 0.5, brute_force(state, predict.dilation))
    assert torch.equal(copy_last(batch) >= 0.5, batch.burnt)


def test_nothing_under_the_mask_reaches_a_dilation() -> None:
    batch = random_batch(((5, 6), (4, 3)))
    predict = DilationPredictor(Dilation(2.0, 0.1, 0.2), SPEC)
    before, after = predict(batch), predict(with_garbage(pad(batch, 1, 2, 3)))
    height, width = before.shape[1:]
    assert torch.equal(before * batch.domain, after[:, :height, :width] * batch.domain)
    assert not after[:, height:].any()
    assert not after[:, :, width:].any()


def test_dilations_are_fitted_on_what_newly_burns_in_the_domain() -> None:
    """The fire of the targets is a dilation by 4; what burnt before and what lies outside would say something else."""
    batch = random_batch(((5, 6), (4, 3)))
    truth = torch.from_numpy(
        np.stack([Dilation(4.0).probability(state) >= 0.5 for state in spread_states(batch, SPEC)])
    )
    batch = replace(batch, target=(truth & ~batch.burnt) | ~batch.domain)
    isotropic, aware = fit_dilations([batch], SPEC, (1, 2, 3, 4, 5, 6, 7), (0.0,), (0.0,))
    assert isotropic == aware
    assert isotropic.dilation.radius == 4


@pytest.mark.parametrize("burns", [True, False])
def test_dilations_are_fitted_where_scores_count(burns: bool) -> None:
    """Where nothing counts either all burns or nothing does: neither speaks for another radius than 4."""
    batch = random_batch(((5, 6), (4, 3)))
    counted = batch.domain.clone()
    counted[:, ::2] = False
    truth = torch.from_numpy(
        np.stack([Dilation(4.0).probability(state) >= 0.5 for state in spread_states(batch, SPEC)])
    )
    target = torch.where(counted, truth, torch.tensor(burns) & batch.burnable) | batch.burnt
    fitted, _ = fit_dilations([replace(batch, target=target, counted=counted)], SPEC, range(1, 8), (0.0,), (0.0,))
    assert fitted.dilation.radius == 4


def archive_samples(fire_data: Path) -> Iterator[tuple[SpreadState, np.ndarray]]:
    import rasterio
    from PIL import Image

    root = fire_data / "zona60"
    with rasterio.open(root / "landscape" / "Input_Geotiff.tif") as raster:
        burnable = ~np.isin(raster.read(1), UNBURNABLE)
    for fire in json.loads((root / "sequences.json").read_text()):
        y0, y1, x0, x1 = fire["crop"]
        folder = root / "isochrones" / f"sequence_{fire['seq']:03d}"
        frames = [np.asarray(Image.open(folder / f"iso_{t:03d}.png"))[..., 1] == 231 for t in range(fire["T"])]
        with (root / "landscape" / "Weathers" / fire["weather"]).open(newline="") as file:
            rows = list(csv.DictReader(file))
        for t in range(fire["T"] - 1):
            angle = np.deg2rad(float(rows[t]["WD"]))
            wind = downwind(np.sin(angle), np.cos(angle))
            state = SpreadState(frames[t], burnable[y0:y1, x0:x1], float(rows[t]["WS"]), wind)
            yield state, frames[t + 1] & ~frames[t]


@pytest.mark.long
def test_known_scores_on_the_shared_archive(fire_data: Path) -> None:
    """Growth-F1 .696 of the 12 px dilation over all 1537 samples was measured with other code."""
    from tasks.fire.scores import Scorer, measures

    isotropic, aware, upwind = Dilation(12.0), Dilation(8.0, 0.15, 0.2), Dilation(8.0, 0.15, -0.2)
    scorers = {dilation: Scorer() for dilation in (isotropic, aware, upwind)}
    for index, (state, new) in enumerate(archive_samples(fire_data)):
        target, domain = new | state.last, np.ones_like(new)
        for dilation, scorer in scorers.items():
            if dilation == isotropic or index % 5 == 0:
                scorer.add(dilation.probability(state), target, state.last, domain, fire=index, step=0)
    everything = scorers[isotropic].histograms()
    scored = {name: float(value[0]) for name, value in measures(everything, 0.5, 16).items()}
    assert len(everything) == 1537
    assert scored["growth_f1"] == pytest.approx(0.696, abs=0.001)
    assert scored["growth_precision"] == pytest.approx(0.709, abs=0.001)
    assert scored["growth_recall"] == pytest.approx(0.684, abs=0.001)
    some = everything.select(everything.fire % 5 == 0)
    parts = (scorers[aware].histograms(), some, scorers[upwind].histograms())
    with_wind, without, against = (float(measures(part, 0.5, 16)["growth_f1"][0]) for part in parts)
    assert with_wind > without > against
