"""ScopeNet: what it sees, and that it learns to tell what an episode holds from what it does not."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import rankdata
from torch.nn import functional as F

from models.vision_language.gaussian_memory import GaussianMemory
from models.vision_language.scope import ScopeNet, reading_statistics

C = 96


def test_statistics_are_cosine_remainder_and_ratio_of_norms():
    q, r = torch.randn(2, 3, C), torch.randn(2, 3, C)
    a, b = q.double().numpy(), r.double().numpy()
    size, other = np.linalg.norm(a, axis=-1), np.linalg.norm(b, axis=-1)
    expected = [(a * b).sum(-1) / size / other, np.linalg.norm(a - b, axis=-1) / size, np.log(other / size)]
    np.testing.assert_allclose(reading_statistics(q, r).numpy(), np.stack(expected, -1), rtol=1e-4, atol=1e-5)


def test_an_empty_query_or_reading_gives_finite_logits_and_gradients():
    net = ScopeNet(C)
    queries = torch.zeros(1, 2, C, requires_grad=True)
    logits = net(queries, torch.zeros(1, 2, C, requires_grad=True))
    assert logits.shape == (1, 2)
    assert logits.isfinite().all()
    logits.sum().backward()
    assert queries.grad.isfinite().all()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_the_scale_of_codes_changes_nothing():
    net, q, r = ScopeNet(C), torch.randn(1, 4, C), torch.randn(1, 4, C)
    torch.testing.assert_close(net(0.1 * q, 0.1 * r), net(q, r), rtol=0, atol=1e-3)


def test_it_learns_from_some_episodes_what_other_episodes_hold():
    torch.manual_seed(0)
    memory, net = GaussianMemory(48, C).requires_grad_(False), ScopeNet(C, 32)
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3)

    def batch():
        codes, others = torch.randn(2, 8, 24, C) / C**0.5
        queries = torch.cat([codes, others], 1) + 0.5 * torch.randn(8, 48, C) / C**0.5
        wanted = torch.cat([torch.ones(8, 24), torch.zeros(8, 24)], 1)
        return queries, memory.read(queries, memory.write(codes)), wanted

    for _ in range(30):
        queries, readings, wanted = batch()
        loss = F.binary_cross_entropy_with_logits(net(queries, readings), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    queries, readings, wanted = batch()
    with torch.no_grad():
        assert auroc(net(queries, readings), wanted) > 0.9
        assert 0.4 < auroc(net(queries, queries), wanted) < 0.6, "the query alone tells nothing"


def auroc(logits, wanted):
    ranks, positive = rankdata(logits.flatten().numpy()), wanted.flatten().bool().numpy()
    count = positive.sum()
    return (ranks[positive].sum() - count * (count + 1) / 2) / (count * (~positive).sum())
