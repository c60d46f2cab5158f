"""Losses of fire models: what they count, and that they add up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from configs.fire_models import EmberFormerConfig, LossConfig, UNetSConfig
from models.fire.batch import FireBatch
from models.fire.losses import FireLoss, perimeter
from models.fire.output import BURNT_LOGIT, FireOutput, monotone
from tests.fire.fire_batches import random_batch

KINDS = ("bce", "bce_dice", "focal_tversky")
EDGE = EmberFormerConfig(edge_weight=0.3)


def random_output(seed: int = 0) -> tuple[FireOutput, FireBatch]:
    batch = random_batch(seed=seed)
    logits = torch.randn(batch.domain.shape, generator=torch.Generator().manual_seed(seed))
    return FireOutput(monotone(logits, batch), {"edge": logits}), batch


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("focus", ["growth", "all"])
def test_sums_and_weights_of_parts_add_up(kind: str, focus: str) -> None:
    loss = FireLoss(LossConfig(kind=kind, focus=focus, pos_weight="auto"), EDGE)
    output, batch = random_output()
    sums, weights = loss.sums(output, batch), loss.weights(batch)
    assert set(sums) == set(weights) == set(loss.coefficients)
    parts = [_sample(output, batch, i) for i in range(2)]
    for term in sums:
        assert float(sums[term]) == pytest.approx(float(sum(loss.sums(*p)[term] for p in parts)), rel=1e-5)
        assert weights[term] == sum(loss.weights(p[1])[term] for p in parts)


def _sample(output: FireOutput, batch: FireBatch, i: int) -> tuple[FireOutput, FireBatch]:
    one = {k: v[i : i + 1] for k, v in vars(batch).items() if k != "grid"}
    return FireOutput(output.logits[i : i + 1], {"edge": output.auxiliary["edge"][i : i + 1]}), replace(batch, **one)


def test_cross_entropy_is_the_mean_over_open_pixels() -> None:
    output, batch = random_output()
    counted = batch.domain & ~batch.burnt
    expected = F.binary_cross_entropy_with_logits(output.logits[counted], batch.target[counted].float())
    assert float(FireLoss(LossConfig(kind="bce"), UNetSConfig()).loss(output, batch)) == pytest.approx(float(expected))
    three = F.binary_cross_entropy_with_logits(
        output.logits[counted], batch.target[counted].float(), pos_weight=torch.tensor(3.0)
    )
    weighted = FireLoss(LossConfig(kind="bce", pos_weight=3.0), UNetSConfig())
    assert float(weighted.loss(output, batch)) == pytest.approx(float(three))


def test_automatic_weight_balances_each_sample() -> None:
    """With logits of 0 and a high limit, burnt and unburnt pixels of a sample count the same."""
    _, batch = random_output()
    loss = FireLoss(LossConfig(kind="bce", focus="all", pos_weight="auto", max_pos_weight=1e9), UNetSConfig())
    zero = FireOutput(torch.zeros(batch.domain.shape))
    unburnt = (batch.domain & ~batch.target).sum()
    assert float(loss.sums(zero, batch)["bce"]) == pytest.approx(2 * float(unburnt) * 0.6931, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_forecast_costs_nothing_and_a_worse_one_more(kind: str) -> None:
    _, batch = random_output()
    loss = FireLoss(LossConfig(kind=kind, region_weight=1.0), UNetSConfig())
    perfect = FireOutput(torch.where(batch.target, BURNT_LOGIT, -BURNT_LOGIT))
    unsure = FireOutput(perfect.logits / 10)
    assert float(loss.loss(perfect, batch)) < 1e-2 < float(loss.loss(unsure, batch))


def test_tversky_punishes_misses_more_than_false_alarms() -> None:
    _, batch = random_output()
    loss = FireLoss(LossConfig(kind="focal_tversky"), UNetSConfig())
    missed = FireOutput(torch.full(batch.domain.shape, -BURNT_LOGIT))
    assert loss.sums(missed, batch)["tversky"] == pytest.approx(2.0, abs=0.3)


def test_samples_without_open_pixels_weigh_nothing() -> None:
    output, batch = random_output()
    batch = replace(batch, counted=torch.stack([batch.counted[0], torch.zeros_like(batch.counted[1])]))
    loss = FireLoss(LossConfig(), UNetSConfig())
    assert loss.weights(batch)["dice"] == 1
    assert float(loss.sums(output, batch)["dice"]) <= 1


def test_perimeter_is_where_burnt_meets_unburnt_domain() -> None:
    burnt = torch.zeros(1, 7, 7, dtype=torch.bool)
    burnt[:, 1:6, 1:6] = True
    domain = torch.ones_like(burnt)
    domain[:, :, 6] = False
    ring = perimeter(burnt, domain)
    assert ring.sum() == 13
    assert not ring[0, 2:5, 2:6].any()
