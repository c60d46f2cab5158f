"""HRM-ACTv1: equal to a plain implementation from the published description, and causal where that is not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from configs.language import HrmActV1Config
from models.language.hrm_act import Carry, HrmAct, log_stablemax, stablemax_cross_entropy

VOCABULARY = 37
CONFIG = HrmActV1Config(
    hidden=32, h_layers=2, l_layers=3, h_cycles=2, l_cycles=3, heads=4, expansion=2, positions=16, max_steps=4
)


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def embeds() -> Tensor:
    return torch.randn(3, 10, CONFIG.hidden) * CONFIG.hidden**-0.5


def model(causal: bool = True, config: HrmActV1Config = CONFIG) -> HrmAct:
    """Return a model whose halting values depend on the state."""
    built = HrmAct(config, VOCABULARY, causal)
    torch.nn.init.normal_(built.q_head.weight)
    torch.nn.init.normal_(built.q_head.bias)
    return built


# The published computation, written out over a dictionary of weights, token pair by token pair in float64.


def plain_norm(x: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()


def plain_turn(x: Tensor) -> Tensor:
    """Turn (S, width) as complex numbers: channel c and c + width / 2 by position * 10000 ** (-2 c / width)."""
    half = x.shape[-1] // 2
    rate = torch.tensor([10_000 ** (-2 * c / x.shape[-1]) for c in range(half)], dtype=torch.float64)
    angle = torch.arange(len(x))[:, None] * rate
    turned = torch.complex(x[:, :half], x[:, half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], -1)


def plain_attention(x: Tensor, w: dict[str, Tensor], name: str, present: list[bool], causal: bool) -> Tensor:
    """Attend over (S, d), query by query."""
    width = x.shape[-1]
    query, key, value = (x @ part.T for part in w[f"{name}.qkv_proj.weight"].split(width))
    heads = []
    for h in range(CONFIG.heads):
        cut = slice(h * width // CONFIG.heads, (h + 1) * width // CONFIG.heads)
        q, k, v = plain_turn(query[:, cut]), plain_turn(key[:, cut]), value[:, cut]
        rows = []
        for i in range(len(x)):
            seen = [j for j in range(len(x)) if (present[j] or i == j) and (j <= i or not causal)]
            rows.append(((k[seen] @ q[i]) / math.sqrt(q.shape[-1])).softmax(0) @ v[seen])
        heads.append(torch.stack(rows))
    return torch.cat(heads, -1) @ w[f"{name}.o_proj.weight"].T


def plain_level(
    state: Tensor, signal: Tensor, w: dict[str, Tensor], name: str, present: list[bool], causal: bool
) -> Tensor:
    x = state + signal
    for layer in range(CONFIG.h_layers if name == "h_level" else CONFIG.l_layers):
        at = f"{name}.layers.{layer}"
        x = plain_norm(x + plain_attention(x, w, f"{at}.attention", present, causal))
        gate_up = x @ w[f"{at}.mlp.gate_up_proj.weight"].T
        gate, up = gate_up[:, : gate_up.shape[1] // 2], gate_up[:, gate_up.shape[1] // 2 :]
        x = plain_norm(x + (gate * gate.sigmoid() * up) @ w[f"{at}.mlp.down_proj.weight"].T)
    return x


def plain_step(
    z_h: Tensor, z_l: Tensor, embeds: Tensor, w: dict[str, Tensor], present: list[bool], causal: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Make one ACT step over a sequence (S, d): states, logits (S, V) and the two halting values."""
    x = embeds.double() * math.sqrt(CONFIG.hidden)
    for h in range(CONFIG.h_cycles):
        for i in range(CONFIG.l_cycles):
            if h == CONFIG.h_cycles - 1 and i == CONFIG.l_cycles - 1:
                z_h, z_l = z_h.detach(), z_l.detach()
            z_l = plain_level(z_l, z_h + x, w, "l_level", present, causal)
        z_h = plain_level(z_h, z_l, w, "h_level", present, causal)
    read = max(i for i, token in enumerate(present) if token) if causal else 0
    return z_h, z_l, z_h @ w["lm_head.weight"].T, w["q_head.weight"] @ z_h[read] + w["q_head.bias"]


def weights(built: HrmAct, grad: bool = False) -> dict[str, Tensor]:
    return {name: value.detach().double().requires_grad_(grad) for name, value in built.state_dict().items()}


def plain_start(built: HrmAct, length: int) -> tuple[Tensor, Tensor]:
    w = weights(built)
    return w["h_init"].expand(length, -1), w["l_init"].expand(length, -1)


MASKS = {
    "no mask": None,
    "right padding": [[1] * 10, [1] * 7 + [0] * 3, [1] * 9 + [0]],
    "left padding": [[1] * 10, [0] * 3 + [1] * 7, [0] + [1] * 9],
}


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("padding", MASKS)
def test_two_steps_equal_the_published_description(embeds, causal, padding):
    built = model(causal)
    mask = None if MASKS[padding] is None else torch.tensor(MASKS[padding])
    present = [[True] * 10] * 3 if mask is None else mask.bool().tolist()
    carry = built.initial_carry(embeds)
    plain = [plain_start(built, 10)] * 3
    for step in range(1, 3):
        carry, logits, q_halt, q_continue = built.act_step(carry, embeds, mask)
        for row in range(3):
            z_h, z_l, expected, q = plain_step(*plain[row], embeds[row], weights(built), present[row], causal)
            plain[row] = (z_h, z_l)
            torch.testing.assert_close(logits[row].double(), expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(torch.stack([q_halt[row], q_continue[row]]).double(), q, rtol=1e-4, atol=1e-4)
        assert carry.steps.tolist() == [step] * 3
        assert not carry.halted.any()
    torch.testing.assert_close(built.forward_with_embeds(embeds, mask, steps=2), logits)


def test_gradient_is_that_of_the_last_l_and_h_call_only(embeds):
    built, prompt = model(), embeds[:1].clone().requires_grad_()
    w, plain_prompt = weights(built, grad=True), embeds[0].double().requires_grad_()
    carry, logits, q_halt, q_continue = built.act_step(built.initial_carry(prompt), prompt)
    (logits.square().mean() + q_halt.sum() - q_continue.sum()).backward()
    start = (w["h_init"].detach().expand(10, -1), w["l_init"].detach().expand(10, -1))
    _, _, expected, q = plain_step(*start, plain_prompt, w, [True] * 10, True)
    (expected.square().mean() + q[0] - q[1]).backward()
    torch.testing.assert_close(prompt.grad[0].double(), plain_prompt.grad, rtol=1e-3, atol=1e-4)
    for name, parameter in built.named_parameters():
        if name != "embedding.weight":
            torch.testing.assert_close(parameter.grad.double(), w[name].grad, rtol=1e-3, atol=1e-4)
    assert not carry.z_h.requires_grad
    assert not carry.z_l.requires_grad


@pytest.mark.parametrize("causal", [True, False])
def test_a_changed_embedding_moves_earlier_logits_only_without_causality(embeds, causal):
    built = model(causal)
    before = built.forward_with_embeds(embeds)
    for place in (4, 9):
        changed = embeds.clone()
        changed[:, place] += 1
        moved = (built.forward_with_embeds(changed) - before).abs().amax((0, 2))
        assert (moved[place:] > 1e-3).all()
        assert (moved[:place] == 0).all() if causal else (moved[:place] > 1e-3).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_has_no_effect(embeds, side):
    built = model()
    padding = torch.full((3, 4, CONFIG.hidden), 7.0)
    absent, present = torch.zeros(3, 4), torch.ones(3, 10)
    left = side == "left"
    padded = torch.cat([padding, embeds] if left else [embeds, padding], 1)
    mask = torch.cat([absent, present] if left else [present, absent], 1)
    tokens = slice(4, None) if left else slice(10)
    expected = built.act_step(built.initial_carry(embeds), embeds)
    found = built.act_step(built.initial_carry(padded), padded, mask)
    torch.testing.assert_close(found[1][:, tokens], expected[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[2:], expected[2:], rtol=1e-4, atol=1e-5)
    assert found[1].isfinite().all()


def plain_stablemax_loss(logits: Tensor, label: int) -> Tensor:
    mass = [x + 1 if x >= 0 else 1 / (1 - x) for x in logits.double().unbind()]
    return -(mass[label] / sum(mass)).log()


def test_act_loss_is_what_the_description_gives_by_hand(embeds):
    built = model()
    labels = torch.randint(VOCABULARY, (3, 10))
    labels[:, :4] = -100
    state = torch.randn(2, 3, 10, CONFIG.hidden)
    # The second sequence makes its last step, and the third starts anew.
    carry = Carry(*state, torch.tensor([1, 3, 2]), torch.tensor([False, False, True]))
    _, logits, q_halt, q_continue = built.act_step(carry, embeds)
    labels[0, 4:] = logits[0, 4:].argmax(-1)
    made = built.act_loss(carry, embeds, labels, generator=torch.Generator().manual_seed(0))

    after = replace(made.carry, halted=torch.zeros(3, dtype=torch.bool))
    _, _, next_halt, next_continue = built.act_step(after, embeds)
    total = torch.zeros((), dtype=torch.float64)
    for row in range(3):
        scored = [plain_stablemax_loss(logits[row, i], int(labels[row, i])) for i in range(4, 10)]
        best = next_halt[row] if row == 1 else max(next_halt[row], next_continue[row])
        halt, go = q_halt[row].double(), q_continue[row].double()
        exact, target = float(row == 0), best.double().sigmoid()
        total += sum(scored) / 6
        total -= 0.5 * (exact * F.logsigmoid(halt) + (1 - exact) * F.logsigmoid(-halt))
        total -= 0.5 * (target * F.logsigmoid(go) + (1 - target) * F.logsigmoid(-go))
    torch.testing.assert_close(made.loss.double(), total / 3, rtol=1e-5, atol=1e-5)
    assert made.exact.tolist() == [True, False, False]
    assert made.carry.steps.tolist() == [2, 4, 1]
    assert made.carry.halted[1]


def test_stablemax_gradient_is_finite_where_the_branches_meet():
    logits = torch.tensor([[[-3.0, 0.0, 1.0, 5.0]]], requires_grad=True)
    stablemax_cross_entropy(logits, torch.tensor([[2]])).sum().backward()
    assert logits.grad.isfinite().all()
    torch.testing.assert_close(log_stablemax(logits.detach()).exp(), torch.tensor([[[0.25, 1.0, 2.0, 6.0]]]) / 9.25)


def test_sequences_halt_by_their_values_unless_they_explore(embeds):
    built = model()
    torch.nn.init.zeros_(built.q_head.weight)
    many = embeds[:1, :2].expand(400, -1, -1)
    labels = torch.zeros(400, 2, dtype=torch.long)
    carry = built.initial_carry(many)

    def halted(bias: tuple[float, float], seed: int) -> Tensor:
        with torch.no_grad():
            built.q_head.bias.copy_(torch.tensor(bias))
            made = built.act_loss(carry, many, labels, generator=torch.Generator().manual_seed(seed))
        return made.carry.halted

    before = torch.get_rng_state()
    assert not halted((-1.0, 1.0), 0).any()
    share = halted((1.0, -1.0), 0).float().mean().item()
    assert 0.85 < share < 0.95  # a tenth must make two steps or more
    assert torch.equal(halted((1.0, -1.0), 5), halted((1.0, -1.0), 5))
    assert not torch.equal(halted((1.0, -1.0), 5), halted((1.0, -1.0), 6))
    assert torch.equal(torch.get_rng_state(), before)


def test_all_sequences_halt_at_the_last_step_and_start_anew(embeds):
    built = model()
    carry = built.initial_carry(embeds)
    first = built.act_step(carry, embeds)[1]
    for _ in range(CONFIG.max_steps):
        carry, logits, _, _ = built.act_step(carry, embeds)
    assert carry.halted.all()
    torch.testing.assert_close(built.forward_with_embeds(embeds), logits)
    carry, again, _, _ = built.act_step(carry, embeds)
    assert torch.equal(again, first)
    assert carry.steps.tolist() == [1, 1, 1]


def test_evaluation_makes_the_configured_steps(embeds):
    built = model(config=CONFIG.model_copy(update={"evaluation_steps": 1}))
    torch.testing.assert_close(built.forward_with_embeds(embeds), built.forward_with_embeds(embeds, steps=1))
    assert not torch.allclose(built.forward_with_embeds(embeds), built.forward_with_embeds(embeds, steps=2))


def test_initial_weights_are_as_published():
    built = HrmAct(HrmActV1Config(hidden=512, h_layers=1, l_layers=1), 1000)
    assert built.embedding.weight.std().item() == pytest.approx(512**-0.5, rel=0.01)
    for linear in (built.lm_head, built.h_level.layers[0].mlp.down_proj):
        assert linear.weight.std().item() == pytest.approx(linear.in_features**-0.5, rel=0.01)
        assert linear.weight.abs().max().item() <= 2 * linear.in_features**-0.5 / 0.8796 * 1.001
    assert built.h_level.layers[0].mlp.down_proj.in_features == 1536
    assert built.q_head.weight.eq(0).all()
    assert built.q_head.bias.eq(-5).all()
    assert built.h_init.std().item() == pytest.approx(1, rel=0.1)
    assert not torch.equal(built.h_init, built.l_init)
    assert {"h_init", "l_init"} <= built.state_dict().keys() - dict(built.named_parameters()).keys()


def test_bf16_autocast_gives_the_recurrent_weights_their_gradient(embeds):
    built = model()
    with torch.autocast("cpu", torch.bfloat16):
        made = built.act_loss(
            built.initial_carry(embeds), embeds, torch.zeros(3, 10).long(), generator=torch.Generator().manual_seed(0)
        )
    made.loss.backward()
    trained = {name: p.grad for name, p in built.named_parameters() if name != "embedding.weight"}
    assert all(grad is not None and grad.abs().sum() > 0 for grad in trained.values())


def test_recomputed_gradients_are_the_same(embeds):
    built = model()
    gradients = []
    for recompute in (False, True):
        built.l_level.recompute = built.h_level.recompute = recompute
        prompt = embeds.clone().requires_grad_()
        built.forward_with_embeds(prompt).square().mean().backward()
        gradients.append(prompt.grad)
    assert torch.equal(*gradients)
