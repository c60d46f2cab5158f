"""Distillation losses against plain numpy, and what they must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tasks.quantise.distillation import attention_states, logits_distillation, relation_distillation
from tests.quantise.tiny import decoder, ids


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def divergence(p, q):
    return (p * np.log(p / q)).sum(-1)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_logits_are_compared_token_by_token(temperature):
    student, teacher, weights = torch.randn(2, 3, 11), torch.randn(2, 3, 11), torch.tensor([[1.0, 0, 2], [0.5, 1, 0]])
    found = logits_distillation(student, teacher, weights, temperature)
    p, q = (softmax(x.double().numpy() / temperature) for x in (teacher, student))
    expected = temperature**2 * (divergence(p, q) * weights.numpy()).sum()
    assert found.item() == pytest.approx(expected, rel=1e-5)


def relations(states, heads):
    """The relation of each sequence of states (S, width), as (heads, S, S)."""
    parts = np.split(states, heads, axis=-1)
    return np.stack([softmax(part @ part.T / np.sqrt(part.shape[-1])) for part in parts])


def test_relations_are_compared_head_by_head_without_padding():
    widths = {"student": (12, 6, 6), "teacher": (24, 12, 6)}
    states = {who: [torch.randn(2, 5, width) for width in sizes] for who, sizes in widths.items()}
    lengths, heads = (5, 3), 3
    attended = torch.arange(5) < torch.tensor(lengths)[:, None]
    found = relation_distillation(states["student"], states["teacher"], attended, heads)
    expected = 0.0
    for ours, theirs in zip(states["student"], states["teacher"], strict=True):
        for row, length in enumerate(lengths):
            q, p = (relations(x[row, :length].double().numpy(), heads) for x in (ours, theirs))
            expected += divergence(p, q).sum() / heads
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_equal_models_are_no_distance_apart_and_only_the_student_learns():
    states = [torch.randn(1, 4, 8) for _ in range(3)]
    student, teacher = ([x.clone().requires_grad_() for x in states] for _ in range(2))
    attended = torch.tensor([[True, True, True, False]])
    assert relation_distillation(states, states, attended, 2).item() == pytest.approx(0, abs=1e-6)
    loss = relation_distillation([x * 2 for x in student], teacher, attended, 2)
    loss += logits_distillation(student[0], teacher[0] * 2, attended.float())
    loss.backward()
    assert all(x.grad is None for x in teacher)
    assert all(x.grad[:, :3].abs().max() > 0 for x in student)
    assert all(x.grad.isfinite().all() and not x.grad[:, 3].any() for x in student)


def test_padding_alone_gives_nothing():
    states = [torch.randn(1, 4, 8, requires_grad=True) for _ in range(3)]
    loss = relation_distillation(states, [torch.randn(1, 4, 8)] * 3, torch.zeros(1, 4, dtype=torch.bool), 2)
    loss.backward()
    assert loss.item() == 0
    assert all(not x.grad.any() for x in states)


def test_relation_heads_must_divide_the_width():
    states = [torch.randn(1, 4, 8)] * 3
    with pytest.raises(ValueError, match="3 relation heads do not divide a width of 8"):
        relation_distillation(states, states, torch.ones(1, 4, dtype=torch.bool), 3)


def test_queries_keys_and_values_of_a_block_are_those_it_computes():
    model = decoder("qwen2")
    block = model.model.layers[-1]
    read = []
    hook = block.self_attn.q_proj.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    with attention_states(block) as passes, torch.no_grad():
        model(ids())
        model(ids()[:, :3])
    model(ids())
    hook.remove()
    assert len(passes) == 2, "none after the context is left"
    for states, x in zip(passes, read, strict=False):
        expected = [getattr(block.self_attn, name)(x) for name in ("q_proj", "k_proj", "v_proj")]
        torch.testing.assert_close(states, expected)
    with (
        pytest.raises(ValueError, match="no k_proj, q_proj, v_proj, so it has no relations"),
        attention_states(block.mlp),
    ):
        pass
