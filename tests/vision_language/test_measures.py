"""Retrieval, attention and normality: measures that can fail, against plain references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from configs.vision_language import AdapterConfig, AlignmentConfig
from models.vision_language.alignment import Alignment, cap_temperature, contrastive
from tasks.retrieval import recall_at
from tasks.vision_language.attention import attention_statistics
from tasks.vision_language.gaussianity import sliced_epps_pulley


def test_recall_counts_those_whose_own_is_before_all_others():
    random = np.random.default_rng(0)
    a, b = (F.normalize(torch.from_numpy(random.normal(size=(30, 8))), dim=-1) for _ in range(2))
    found = recall_at(a @ b.T)
    scores = (a @ b.t()).numpy()
    for depth in (1, 5, 10):
        expected = np.mean([(scores[k] >= scores[k, k]).sum() <= depth for k in range(30)])
        assert found[f"text_at_{depth}"] == pytest.approx(expected)
    assert recall_at(a @ a.T)["image_at_1"] == 1
    assert recall_at(torch.ones(30, 30))["image_at_10"] == 0, "equal vectors win nothing"


def test_contrast_is_that_of_clip_and_equal_texts_are_no_negatives():
    scores = torch.randn(5, 5, dtype=torch.float64)
    targets = torch.arange(5)
    clip = (F.cross_entropy(scores, targets) + F.cross_entropy(scores.t(), targets)) / 2
    torch.testing.assert_close(contrastive(scores, scores.t(), torch.eye(5, dtype=torch.float64)).mean(), clip)
    same = torch.eye(5, dtype=torch.float64)
    same[0, 1] = same[1, 0] = 1
    alike = torch.zeros(5, 5, dtype=torch.float64)
    alike[0, 1] = alike[1, 0] = alike[0, 0] = alike[1, 1] = 50
    alike[2:, 2:] = 50 * torch.eye(3)
    assert contrastive(alike, alike.t(), same)[:2].mean() == pytest.approx(np.log(2), abs=1e-6)


def test_a_temperature_below_the_lowest_comes_back_and_can_rise_again():
    space = Alignment(AlignmentConfig(width=8, heads=2, longest=8), 8)
    with torch.no_grad():
        space.log_scale.fill_(7.0)
    space.inverse_temperature.backward()
    assert space.log_scale.grad == 0, "where it stays for good unless something brings it back"
    cap_temperature(space.log_scale)
    space.log_scale.grad = None
    space.inverse_temperature.backward()
    assert space.inverse_temperature.item() == pytest.approx(100)
    assert space.log_scale.grad > 0


def test_a_pattern_that_does_not_depend_on_the_image_wins_nothing_by_words():
    space = Alignment(AlignmentConfig(width=8, heads=2, longest=8, by_words=True), 8)
    words, attended = torch.randn(4, 6, 8), torch.ones(4, 6, dtype=torch.bool)
    peaked = torch.zeros(1, 9, 8).expand(4, -1, -1).clone()
    peaked[:, 3] = 7.0
    scores = space.inverse_temperature * space.fine_scores(peaked, words, attended)
    to_image = -scores.t().log_softmax(-1).diagonal()
    torch.testing.assert_close(to_image, torch.full((4,), np.log(4)).float(), atol=1e-5, rtol=0)


def test_normality_is_small_for_normal_samples_and_grows_for_others():
    random = torch.Generator().manual_seed(1)
    normal = [sliced_epps_pulley(torch.randn(n, 16, generator=random)) for n in (200, 800, 3200)]
    assert max(normal) < 0.6
    for make in (
        lambda n: 3 * torch.randn(n, 16, generator=random),
        lambda n: torch.rand(n, 16, generator=random),
        lambda n: F.one_hot(torch.arange(n) % 16, 16).double(),
    ):
        few, many = sliced_epps_pulley(make(200)), sliced_epps_pulley(make(3200))
        assert few > 2 * max(normal)
        assert many > 8 * few


def test_normality_is_the_integral_that_it_says():
    sample = torch.randn(40, 1, dtype=torch.float64)
    t = np.linspace(-3, 3, 20001)
    x = sample.numpy()[:, 0]
    phi = np.exp(1j * t[:, None] * x[None]).mean(1)
    integrand = np.abs(phi - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi)
    assert sliced_epps_pulley(sample, directions=4) == pytest.approx(40 * np.trapezoid(integrand, t), rel=0.02)


def test_attention_statistics_tell_even_from_peaked():
    words = torch.ones(1, 2, dtype=torch.bool)
    even, peaked = torch.full((1, 2, 4), 0.1), torch.tensor([[[0.4, 0.0, 0.0, 0.0]] * 2])
    of_even, of_peaked = attention_statistics(even, words), attention_statistics(peaked, words)
    assert of_even["attention_entropy"] == pytest.approx(np.log(4))
    assert of_peaked["attention_entropy"] == pytest.approx(0, abs=1e-6)
    assert (of_even["attention_sparsity"], of_peaked["attention_sparsity"]) == (0, 0.75)
    assert (of_even["attention_max"], of_peaked["attention_max"]) == pytest.approx((0.1, 0.4))


@pytest.mark.parametrize(("patches", "tokens"), [(196, 25), (4, 8), (64, 8), (65, 9), (4096, 64)])
def test_the_prefix_has_an_eighth_of_the_patches_within_bounds(patches, tokens):
    assert AdapterConfig().tokens_of(patches) == tokens
