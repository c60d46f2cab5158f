"""Losses of fire models against plain NumPy, pixel by pixel and sample by sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from configs.fire_models import EmberFormerConfig, LossConfig, UNetSConfig
from models.fire.batch import FireBatch
from models.fire.losses import FireLoss, perimeter
from models.fire.masked_layers import TokenPlace, place_tokens
from models.fire.output import FireOutput, known
from tests.fire.fire_batches import random_batch


@pytest.fixture
def batch() -> FireBatch:
    """Two samples, the second one without a burnt pixel among those that count; not all of the domain counts."""
    batch = random_batch(seed=3)
    counted = batch.domain & (torch.rand(batch.domain.shape, generator=torch.Generator().manual_seed(1)) < 0.8)
    target = batch.target.clone()
    target[1] = batch.burnt[1]
    return replace(batch, counted=counted, target=target)


def output_of(batch: FireBatch) -> FireOutput:
    draw = torch.Generator().manual_seed(0)
    logits, edge = (torch.randn(batch.domain.shape, generator=draw) * 2 for _ in range(2))
    return FireOutput(logits, {"edge": edge})


def plain(batch: FireBatch, focus: str) -> tuple[np.ndarray, ...]:
    """Return what counts, the target and the output, as NumPy."""
    output = output_of(batch)
    counts = batch.counted & ~batch.burnt if focus == "growth" else batch.counted
    return counts.numpy(), batch.target.numpy().astype(float), output.logits.double().numpy()


def cross_entropy(logit: np.ndarray, target: np.ndarray, positive: float) -> np.ndarray:
    p = 1 / (1 + np.exp(-logit))
    return -(positive * target * np.log(p) + (1 - target) * np.log(1 - p))


def positive_weight(target: np.ndarray, limit: float) -> float:
    """Unburnt for each burnt pixel of a sample, at most the limit; 1 where none burns."""
    return min((1 - target).sum() / target.sum(), limit) if target.sum() else 1.0


@pytest.mark.parametrize("focus", ["growth", "all"])
@pytest.mark.parametrize("weight", [1.0, 3.0, "auto"])
@pytest.mark.parametrize("limit", [2.5, 1e9])
def test_cross_entropy_and_focal_loss(batch: FireBatch, focus: str, weight: float | str, limit: float) -> None:
    counts, target, logit = plain(batch, focus)
    expected = {"bce": 0.0, "focal": 0.0}
    for c, t, z in zip(counts, target, logit, strict=True):
        positive = positive_weight(t[c], limit) if weight == "auto" else float(weight)
        each = cross_entropy(z[c], t[c], positive)
        expected["bce"] += each.sum()
        expected["focal"] += (np.abs(1 / (1 + np.exp(-z[c])) - t[c]) ** 1.7 * each).sum()
    for kind, term in (("bce", "bce"), ("focal_tversky", "focal")):
        loss = FireLoss(
            LossConfig(kind=kind, focus=focus, pos_weight=weight, max_pos_weight=limit, focal_gamma=1.7), UNetSConfig()
        )
        assert float(loss.sums(output_of(batch), batch)[term]) == pytest.approx(expected[term], rel=1e-4)
        assert loss.weights(batch)[term] == counts.sum()


@pytest.mark.parametrize("focus", ["growth", "all"])
def test_dice_and_tversky(batch: FireBatch, focus: str) -> None:
    counts, target, logit = plain(batch, focus)
    for kind, term, alpha, beta in (("bce_dice", "dice", 0.5, 0.5), ("focal_tversky", "tversky", 0.2, 0.9)):
        expected = 0.0
        for c, t, z in zip(counts, target, logit, strict=True):
            p = 1 / (1 + np.exp(-z[c]))
            hit, false_alarm, miss = (p * t[c]).sum(), (p * (1 - t[c])).sum(), ((1 - p) * t[c]).sum()
            expected += 1 - (hit + 1) / (hit + alpha * false_alarm + beta * miss + 1)
        loss = FireLoss(LossConfig(kind=kind, focus=focus, tversky_alpha=0.2, tversky_beta=0.9), UNetSConfig())
        assert float(loss.sums(output_of(batch), batch)[term]) == pytest.approx(expected, rel=1e-4)
        assert loss.weights(batch)[term] == 2


def test_the_edge_term_is_the_cross_entropy_of_the_perimeter_over_all_that_counts(batch: FireBatch) -> None:
    output = output_of(batch)
    domain, burnt = batch.domain.numpy(), batch.target.numpy()
    expected = 0.0
    for b, y, x in np.argwhere(batch.counted.numpy()):
        around = (slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2))
        edge = burnt[b, y, x] and domain[b, y, x] and (domain[b] & ~burnt[b])[around].any()
        expected += cross_entropy(output.auxiliary["edge"].double().numpy()[b, y, x], np.float64(edge), 1.0)
    loss = FireLoss(LossConfig(kind="bce"), EmberFormerConfig(edge_weight=0.3))
    assert float(loss.sums(output, batch)["edge"]) == pytest.approx(expected, rel=1e-4)
    assert loss.weights(batch)["edge"] == batch.counted.sum()
    assert loss.coefficients == {"bce": 1.0, "edge": 0.3}


def test_the_loss_is_the_sum_of_its_terms_by_their_coefficients(batch: FireBatch) -> None:
    loss = FireLoss(LossConfig(kind="bce_dice", region_weight=0.7), EmberFormerConfig(edge_weight=0.3))
    output = output_of(batch)
    sums, weights = loss.sums(output, batch), loss.weights(batch)
    expected = sum(c * float(sums[k]) / weights[k] for k, c in (("bce", 1.0), ("dice", 0.7), ("edge", 0.3)))
    assert float(loss.loss(output, batch)) == pytest.approx(expected, rel=1e-5)
    assert set(FireLoss(LossConfig(kind="bce_dice", region_weight=0.0), UNetSConfig()).coefficients) == {"bce"}


def test_the_last_frame_and_what_lies_outside_are_no_models_business(batch: FireBatch) -> None:
    np.testing.assert_array_equal(known(batch).numpy(), batch.burnt.numpy() | ~batch.domain.numpy())


def test_tokens_join_the_coarsest_map_whose_stride_divides_the_patch() -> None:
    assert place_tokens(64, patch=16, stem=2, levels=4) == TokenPlace(64, 3, 1)
    assert place_tokens(64, patch=16, stem=2, levels=3) == TokenPlace(64, 2, 2)
    assert place_tokens(64, patch=12, stem=2, levels=4) == TokenPlace(64, 1, 3)
    with pytest.raises(ValueError, match="patch 9 cannot join a decoder of stride 2"):
        place_tokens(64, patch=9, stem=2, levels=4)


def test_a_batch_in_which_nothing_counts_costs_nothing(batch: FireBatch) -> None:
    nothing = replace(batch, counted=torch.zeros_like(batch.counted))
    loss = FireLoss(LossConfig(kind="bce_dice"), EmberFormerConfig(edge_weight=0.3))
    assert float(loss.loss(output_of(nothing), nothing)) == 0
    assert set(loss.weights(nothing).values()) == {0.0}
    half = replace(batch, counted=batch.counted & torch.tensor([True, False])[:, None, None])
    assert loss.weights(half)["dice"] == 1


def test_a_perimeter_is_found_at_corners_of_the_picture_and_not_beside_what_lies_outside_the_domain() -> None:
    domain = torch.ones(1, 4, 4, dtype=torch.bool)
    domain[0, :, 3] = False
    burnt = torch.zeros_like(domain)
    burnt[0, :2, :] = True
    found = perimeter(burnt, domain)
    assert found[0].int().tolist() == [[0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
