"""The learned front against an independent shortest-path search, and what training needs of its gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from models.fire.spread_front import CLOSED, HORIZON, STEPS, edge_times, travel_times


def random_front(seed=0, shape=(2, 17, 23)):
    random = torch.Generator().manual_seed(seed)
    batch, height, width = shape
    leave = torch.randn((batch, len(STEPS), height, width), generator=random, dtype=torch.float64) - 1.5
    enter = 0.3 * torch.randn(shape, generator=random, dtype=torch.float64)
    burnt = torch.rand(shape, generator=random) < 0.02
    burnt[:, height // 2, width // 2] = True
    burning_allowed = (torch.rand(shape, generator=random) < 0.85) | burnt
    return leave, enter, burnt, burning_allowed


def reference(leave, enter, burnt, burning_allowed):
    """Dijkstra over an explicit graph, one pixel and direction at a time."""
    height, width = burnt.shape
    heads, tails, lengths = [], [], []
    for y in range(height):
        for x in range(width):
            for d, (dy, dx) in enumerate(STEPS):
                v, u = y + dy, x + dx
                if 0 <= v < height and 0 <= u < width and burning_allowed[v, u]:
                    tails.append(y * width + x)
                    heads.append(v * width + u)
                    lengths.append(math.hypot(dy, dx) * math.exp(leave[d, y, x] + enter[v, u]))
    graph = coo_array((lengths, (tails, heads)), shape=(height * width,) * 2).tocsr()
    return dijkstra(graph, indices=np.flatnonzero(burnt), min_only=True).reshape(height, width)


@pytest.mark.parametrize("seed", range(3))
def test_arrival_times_are_those_of_dijkstra(seed):
    leave, enter, burnt, allowed = random_front(seed)
    arrivals = travel_times(leave, enter, burnt, allowed, reach=60)
    for sample in range(len(burnt)):
        parts = (part[sample].numpy() for part in (leave, enter, burnt, allowed))
        expected = np.minimum(reference(*parts), HORIZON)
        np.testing.assert_allclose(arrivals[sample].numpy(), expected, rtol=1e-9)


def test_gradient_is_that_of_the_arrival_times():
    leave, enter, burnt, allowed = random_front(shape=(1, 6, 7))
    leave.requires_grad_()
    enter.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda leave, enter: travel_times(leave, enter, burnt, allowed, reach=40), (leave, enter), eps=1e-7, atol=1e-5
    )


def test_pixels_closed_to_fire_are_never_entered():
    leave, enter, burnt, allowed = random_front()
    allowed[:, :, 11] = False
    burnt[:, :, 11:] = False
    burnt[:, 8, 5] = True
    arrivals = travel_times(leave, enter, burnt, allowed, reach=60)
    assert (arrivals[:, :, 11:] == HORIZON).all()
    assert (arrivals[:, :, :11] < HORIZON).any()


def test_more_padding_and_other_batch_mates_change_nothing():
    leave, enter, burnt, allowed = random_front()
    alone = travel_times(leave[:1], enter[:1], burnt[:1], allowed[:1], reach=60)

    def wider(values, fill):
        return torch.nn.functional.pad(values, (0, 9, 0, 5), value=fill)

    padded = travel_times(wider(leave, 3.0), wider(enter, -2.0), wider(burnt, False), wider(allowed, False), reach=60)
    assert torch.equal(padded[:1, :17, :23], alone)


def test_edges_from_outside_the_picture_do_not_exist():
    leave, enter, _, allowed = random_front()
    times = edge_times(leave, enter, torch.ones_like(allowed))
    southward = STEPS.index((1, 0))  # enters a pixel from the row above it
    assert (times[:, southward, 0] > CLOSED / 100).all()
    assert (times[:, southward, 1:] < CLOSED / 100).all()
