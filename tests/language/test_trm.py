"""TRM: equal to a plain implementation from the published description, in both of its mixings, causal or not."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from configs.recursive import TrmConfig
from models.language.recurrent import Past
from models.language.trm import Trm, TrmCarry
from models.language.trm_lm import TrmLM

VOCABULARY = 37
MIXINGS = ("added", "concatenated")
CLOSE = {"rtol": 1e-6, "atol": 1e-6}
MASKS = {
    "no mask": None,
    "right padding": [[1] * 7, [1] * 5 + [0] * 2, [1] * 6 + [0]],
    "left padding": [[1] * 7, [0] * 2 + [1] * 5, [0] + [1] * 6],
}

both_mixings = pytest.mark.parametrize("mixing", MIXINGS)
causal_or_not = pytest.mark.parametrize("causal", [True, False])


def settings(mixing: str, **changes: object) -> TrmConfig:
    sizes = {"hidden": 32, "layers": 2, "heads": 2, "expansion": 2, "positions": 16, "inner_steps": 3, "rounds": 2}
    return TrmConfig.model_validate({**sizes, "supervision_steps": 4, "halting": True, "mixing": mixing, **changes})


def model(mixing: str, causal: bool = True, **changes: object) -> Trm:
    """Return a model in float64, but for its table of angles, whose halting value depends on the state."""
    built = Trm(settings(mixing, **changes), VOCABULARY, causal).double()
    if built.halt_head is not None:
        torch.nn.init.normal_(built.halt_head.weight)
    return built


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def embeds() -> Tensor:
    return torch.randn(3, 7, 32, dtype=torch.float64) * 32**-0.5


# The published computation, written out over a dictionary of weights: a sequence at a time, in float64.


def plain_norm(x: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()


def plain_turn(x: Tensor, places: list[int]) -> Tensor:
    """Turn (S, width) as complex numbers: channel c and c + width / 2 by place * 10000 ** (-2 c / width)."""
    half = x.shape[-1] // 2
    rate = torch.tensor([10_000 ** (-2 * c / x.shape[-1]) for c in range(half)], dtype=torch.float64)
    angle = torch.tensor(places, dtype=torch.float64)[:, None] * rate
    turned = torch.complex(x[:, :half], x[:, half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], -1)


def plain_net(x: Tensor, w: dict[str, Tensor], places: list[int], seen: Tensor) -> Tensor:
    """Return what the net makes of (S, d); query i sees key j where `seen[i, j]`."""
    for layer in range(2):
        at = f"net.layers.{layer}"
        query, key, value = (x @ part.T for part in w[f"{at}.attention.qkv_proj.weight"].chunk(3))
        heads = []
        for q, k, v in zip(*(part.chunk(2, 1) for part in (query, key, value)), strict=True):
            likeness = plain_turn(q, places) @ plain_turn(k, places).T / math.sqrt(q.shape[1])
            shares = likeness.exp() * seen
            heads.append(shares / shares.sum(1, keepdim=True) @ v)
        x = plain_norm(x + torch.cat(heads, 1) @ w[f"{at}.attention.o_proj.weight"].T)
        gate, up = (x @ part.T for part in w[f"{at}.mlp.gate_up_proj.weight"].chunk(2))
        x = plain_norm(x + (gate * gate.sigmoid() * up) @ w[f"{at}.mlp.down_proj.weight"].T)
    return x


def plain_round(x: Tensor, y: Tensor, z: Tensor, w: dict[str, Tensor], seen: Tensor) -> tuple[Tensor, Tensor]:
    length, places = len(x), list(range(len(x)))
    if "parts" not in w:
        for _ in range(3):
            z = plain_net(x + y + z, w, places, seen)
        return plain_net(y + z, w, places, seen), z
    for _ in range(3):
        side_by_side = torch.cat([x + w["parts"][0], y + w["parts"][1], z + w["parts"][2]])
        _, y, z = plain_net(side_by_side, w, places * 3, seen.tile(3, 3)).split(length)
    return y, z


def plain_step(
    y: Tensor, z: Tensor, embeds: Tensor, w: dict[str, Tensor], present: list[bool], causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Make one step of supervision over a sequence (S, d): two rounds, the first without gradient; y, z, logits."""
    x, length = embeds * math.sqrt(embeds.shape[-1]), len(embeds)
    pairs = [[(present[j] or i == j) and (j <= i or not causal) for j in range(length)] for i in range(length)]
    seen = torch.tensor(pairs, dtype=torch.float64)
    with torch.no_grad():
        y, z = plain_round(x, y, z, w, seen)
    y, z = plain_round(x, y, z, w, seen)
    return y, z, y @ w["lm_head.weight"].T


def weights(built: Trm, grad: bool = False) -> dict[str, Tensor]:
    return {name: value.detach().double().requires_grad_(grad) for name, value in built.state_dict().items()}


@both_mixings
@causal_or_not
@pytest.mark.parametrize("padding", MASKS)
def test_states_and_logits_of_two_steps_are_those_of_the_description(embeds, mixing, causal, padding):
    built = model(mixing, causal)
    mask = None if MASKS[padding] is None else torch.tensor(MASKS[padding])
    present = [[True] * 7] * 3 if mask is None else mask.bool().tolist()
    w, carry = weights(built), built.initial_carry(embeds)
    plain = [(w["y_init"].expand(7, -1), w["z_init"].expand(7, -1))] * 3
    for made in range(1, 3):
        carry, step = built.supervised_step(carry, embeds, mask)
        for row in range(3):
            y, z, logits = plain_step(*plain[row], embeds[row], w, present[row], causal)
            plain[row] = y, z
            torch.testing.assert_close(step.y[row], y, **CLOSE)
            torch.testing.assert_close(step.z[row], z, **CLOSE)
            torch.testing.assert_close(step.logits[row], logits, **CLOSE)
        assert carry.steps.tolist() == [made] * 3
        assert not carry.halted.any()


@both_mixings
def test_gradients_of_answer_and_halting_loss_are_those_of_the_description(embeds, mixing):
    built, prompt = model(mixing), embeds[:1].clone().requires_grad_()
    w, plain_prompt, labels = weights(built, grad=True), embeds[0].clone().requires_grad_(), torch.arange(7)
    _, step = built.supervised_step(built.initial_carry(prompt), prompt)
    halting = built.halting(step.y, torch.tensor([6]))
    loss = F.cross_entropy(step.logits[0], labels)
    missed = F.binary_cross_entropy_with_logits(halting, torch.ones(1, dtype=torch.float64))
    (loss + 0.5 * missed).backward()

    start = (w[name].detach().expand(7, -1) for name in ("y_init", "z_init"))
    y, _, logits = plain_step(*start, plain_prompt, w, [True] * 7, True)
    plain_loss = -logits.log_softmax(-1)[range(7), labels].mean()
    plain_missed = -((w["halt_head.weight"][0] @ y[6] + w["halt_head.bias"][0]).sigmoid().log())
    (plain_loss + 0.5 * plain_missed).backward()
    torch.testing.assert_close(loss, plain_loss, **CLOSE)
    torch.testing.assert_close(missed, plain_missed, **CLOSE)
    torch.testing.assert_close(prompt.grad[0], plain_prompt.grad, **CLOSE)
    for name, parameter in built.named_parameters():
        if name != "embedding.weight":
            torch.testing.assert_close(parameter.grad, w[name].grad, **CLOSE, msg=lambda text, n=name: f"{n}: {text}")


@both_mixings
def test_gradient_reaches_both_states_in_the_last_round_and_no_further(embeds, mixing):
    for rounds in (1, 2):
        built = model(mixing, rounds=rounds)
        y, z = (torch.randn_like(embeds).requires_grad_() for _ in range(2))
        carry = TrmCarry(y, z, torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.bool))
        new, step = built.supervised_step(carry, embeds)
        step.logits.square().mean().backward()
        if rounds == 1:
            assert (y.grad.abs().amax(-1) > 0).all()
            assert (z.grad.abs().amax(-1) > 0).all()
        else:
            assert y.grad is None
            assert z.grad is None
        assert not new.y.requires_grad
        assert not new.z.requires_grad


@both_mixings
@causal_or_not
def test_a_changed_embedding_moves_earlier_logits_only_without_causality(embeds, mixing, causal):
    built = model(mixing, causal)
    for mask in (None, torch.ones(3, 7)):
        *_, before = (step.logits for step in built.refine(embeds, mask, 3))
        for place in (3, 6):
            changed = embeds.clone()
            changed[:, place] += 1
            *_, after = (step.logits for step in built.refine(changed, mask, 3))
            moved = (after - before).abs().amax((0, 2))
            assert (moved[place:] > 1e-3).all()
            assert (moved[:place] == 0).all() if causal else (moved[:place] > 1e-6).all()


@both_mixings
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_has_no_effect(embeds, mixing, side):
    built, padding = model(mixing), torch.full((3, 4, 32), 7.0, dtype=torch.float64)
    left = side == "left"
    absent, present = torch.zeros(3, 4), torch.ones(3, 7)
    padded = torch.cat([padding, embeds] if left else [embeds, padding], 1)
    mask = torch.cat([absent, present] if left else [present, absent], 1)
    tokens = slice(4, None) if left else slice(7)
    *_, expected = built.refine(embeds, None, 2)
    *_, found = built.refine(padded, mask, 2)
    torch.testing.assert_close(found.logits[:, tokens], expected.logits, rtol=1e-5, atol=1e-5)
    assert found.logits.isfinite().all()


@both_mixings
def test_more_steps_at_inference_than_in_training_go_on_where_those_end(embeds, mixing):
    built = model(mixing)
    steps = list(built.refine(embeds, None, 20))
    assert len(steps) == 20
    assert all(step.logits.isfinite().all() for step in steps)
    carry = built.initial_carry(embeds)
    for step in steps[:4]:
        carry, supervised = built.supervised_step(carry, embeds)
        torch.testing.assert_close(supervised.logits, step.logits)
    assert carry.halted.all()
    assert (steps[4].logits - steps[3].logits).abs().max() > 1e-4
    config = settings(mixing, evaluation_steps=9)
    language = TrmLM(config, VOCABULARY)
    assert language.depth == 9 > config.supervision_steps
    *_, last = language.by_depth(embeds.float(), None, 9)
    torch.testing.assert_close(language(embeds.float()), last)


def test_a_halted_sequence_starts_anew_and_others_go_on(embeds):
    built = model("added")
    carry, first = built.supervised_step(built.initial_carry(embeds), embeds)
    halted = torch.tensor([False, True, False])
    mixed, step = built.supervised_step(TrmCarry(carry.y, carry.z, carry.steps, halted), embeds)
    second = built.supervised_step(carry, embeds)[1]
    torch.testing.assert_close(step.logits[1], first.logits[1])
    torch.testing.assert_close(step.logits[::2], second.logits[::2])
    assert mixed.steps.tolist() == [2, 1, 2]


def test_halting_is_read_at_the_last_token_of_each_prompt(embeds):
    built = model("added")
    values = built.halting(embeds, torch.tensor([2, 6, 0]))
    expected = [
        embeds[row, at] @ built.halt_head.weight[0] + built.halt_head.bias[0] for row, at in enumerate((2, 6, 0))
    ]
    torch.testing.assert_close(values, torch.stack(expected), rtol=1e-5, atol=1e-5)
    untrained = Trm(settings("added"), VOCABULARY)
    torch.testing.assert_close(untrained.halting(embeds.float(), torch.tensor([1, 1, 1])), torch.full((3,), -5.0))


def test_initial_weights_are_as_published():
    built = Trm(TrmConfig(hidden=512), 1000)
    assert built.embedding.weight.std().item() == pytest.approx(512**-0.5, rel=0.01)
    for linear in (built.lm_head, built.net.layers[0].mlp.down_proj):
        assert linear.weight.std().item() == pytest.approx(linear.in_features**-0.5, rel=0.01)
    assert built.y_init.std().item() == pytest.approx(1, rel=0.1)
    assert not torch.equal(built.y_init, built.z_init)
    assert {"y_init", "z_init"} <= built.state_dict().keys() - dict(built.named_parameters()).keys()
    assert len(built.net.layers) == 2
    assert built.halt_head is None


@both_mixings
def test_bf16_autocast_gives_every_weight_its_gradient(embeds, mixing):
    built, embeds = model(mixing).float(), embeds.float()
    with torch.autocast("cpu", torch.bfloat16):
        _, step = built.supervised_step(built.initial_carry(embeds), embeds)
        loss = step.logits.float().square().mean() + built.halting(step.y, torch.tensor([6, 6, 6])).sum()
    loss.backward()
    trained = {name: p.grad for name, p in built.named_parameters() if name != "embedding.weight"}
    assert all(grad is not None and grad.abs().sum() > 0 for grad in trained.values())


@both_mixings
def test_recomputed_gradients_are_the_same(embeds, mixing):
    built, gradients = model(mixing), []
    for recompute in (False, True):
        built.net.recompute = recompute
        prompt = embeds.clone().requires_grad_()
        built.supervised_step(built.initial_carry(prompt), prompt)[1].logits.square().mean().backward()
        gradients.append(prompt.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("pieces", [[7], [4, 3], [1] * 7])
@both_mixings
def test_what_is_read_in_pieces_has_the_logits_of_what_is_read_at_once(embeds, mixing, pieces):
    net = model(mixing)
    mask = torch.tensor([[1] * 7, [0] * 2 + [1] * 5, [0] + [1] * 6])
    *_, whole = net.refine(embeds, mask, 3)
    past, found, end = Past(1 << 30), [], 0
    for length in pieces:
        begin, end = end, end + length
        found.append(net.read(embeds[:, begin:end], mask[:, :end], past, 3))
    torch.testing.assert_close(torch.cat(found, 1)[mask.bool()], whole.logits[mask.bool()], **CLOSE)
