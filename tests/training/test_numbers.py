"""Learning rates, AdamW, Muon, clipping, averages of weights and rows of the history, against formulas written out."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from torch import nn

from configs.training import TrainingConfig
from tasks.training.history import History, Interval, total_loss
from tasks.training.optimiser import MovingAverage, Optimiser, Parameters, learning_rate, norm_of
from tasks.training.share import Share
from tests.training.plain_muon import PlainMuon
from tests.training.toy import Toy


def config(**settings) -> TrainingConfig:
    return TrainingConfig(**{"epochs": 3, "batch_size": 4, "learning_rates": {"body": 0.1, "head": 0.02}} | settings)


def rates(settings: TrainingConfig, group: str, steps: int = 12) -> list[float]:
    return [learning_rate(settings, group, step, 4) for step in range(steps)]


def cosine(done: float, end: float = 0.0) -> float:
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * done))


def test_without_a_warm_up_the_first_step_has_the_peak_and_the_cosine_takes_all_steps():
    assert rates(config(), "body") == pytest.approx([0.1 * cosine(k / 12) for k in range(12)])
    assert rates(config(final_lr_share=0.25), "head") == pytest.approx([0.02 * cosine(k / 12, 0.25) for k in range(12)])
    assert rates(config(final_lr_share=1.0), "body") == pytest.approx([0.1] * 12)


def test_a_warm_up_rises_in_equal_steps_and_the_cosine_takes_the_rest():
    found = rates(config(warmup_steps=4, final_lr_share=0.5), "body")
    assert found == pytest.approx([0.025, 0.05, 0.075, 0.1, *(0.1 * cosine(k / 8, 0.5) for k in range(8))])


def test_a_frozen_group_starts_when_it_thaws():
    found = rates(config(freeze={"head": 1}, warmup_steps=2), "head")
    assert found == pytest.approx([0, 0, 0, 0, 0.01, 0.02, *(0.02 * cosine(k / 6) for k in range(6))])
    assert rates(config(freeze={"head": 3}), "head") == [0] * 12
    assert rates(config(freeze={"head": 9}), "head") == [0] * 12


def test_a_warm_up_longer_than_the_training_ends_with_it():
    assert rates(config(epochs=1, warmup_steps=50), "body", 4) == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert learning_rate(config(epochs=1, warmup_steps=4), "body", 4, 4) == pytest.approx(0.1)


@pytest.mark.parametrize("beyond", [12, 13, 40])
def test_steps_beyond_the_last_one_have_the_last_rate(beyond):
    assert learning_rate(config(final_lr_share=0.3), "body", beyond, 4) == pytest.approx(0.03)


def optimiser(**settings) -> tuple[nn.Module, Parameters, Optimiser]:
    torch.manual_seed(0)
    objective = Toy({})
    model, chosen = objective.build(), config(**settings)
    parameters = Parameters(objective, model, chosen)
    return model, parameters, Optimiser(parameters, chosen, 4)


def give_gradients(model: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Write gradients into the parameters' own buffers, and return them in float64."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad += torch.randn(parameter.shape, generator=draw)
    return {name: p.grad.double().clone() for name, p in model.named_parameters() if p.grad is not None}


def test_steps_are_those_of_adamw_written_out():
    settings = {"weight_decay": 0.3, "betas": (0.8, 0.9), "clip_norm": None, "warmup_steps": 3}
    model, _, adam = optimiser(**settings)
    weights = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    first, second = ({name: torch.zeros_like(w) for name, w in weights.items()} for _ in range(2))
    for step in range(5):
        adam.begin(0)
        gradients = give_gradients(model, step)
        norm = adam.reduce(Share())
        assert float(norm) == pytest.approx(math.sqrt(sum(float((g**2).sum()) for g in gradients.values())), rel=1e-5)
        adam.step(step)
        for name, w in weights.items():
            rate = learning_rate(config(**settings), "body" if name[0] == "0" else "head", step, 4)
            w *= 1 - rate * (0.3 if w.ndim == 2 else 0.0)
            first[name] = 0.8 * first[name] + 0.2 * gradients[name]
            second[name] = 0.9 * second[name] + 0.1 * gradients[name] ** 2
            means = first[name] / (1 - 0.8 ** (step + 1)), second[name] / (1 - 0.9 ** (step + 1))
            w -= rate * means[0] / (means[1].sqrt() + 1e-8)
            torch.testing.assert_close(dict(model.named_parameters())[name].double(), w, rtol=1e-5, atol=1e-6)


def test_matrices_take_the_steps_of_muon_written_out():
    settings = {"weight_decay": 0.3, "clip_norm": None, "matrices": "muon"}
    model, parameters, ours = optimiser(**settings)
    assert parameters.by_muon == {"0.weight", "3.weight"}
    other, _, adam = optimiser(**settings | {"matrices": "adamw"})
    plain = copy.deepcopy(model)
    groups = [{"params": [plain.get_parameter(n)], "weight_decay": 0.3} for n in ("0.weight", "3.weight")]
    muon = PlainMuon(groups, {"lr": 0.0})
    for step in range(4):
        for one in (ours, adam):
            one.begin(0)
        gradients = give_gradients(model, step)
        give_gradients(other, step)
        for one in (ours, adam):
            one.reduce(Share())
            one.step(step)
        for group, (body, name) in zip(muon.param_groups, (("body", "0.weight"), ("head", "3.weight")), strict=True):
            group["lr"] = learning_rate(config(**settings), body, step, 4)
            plain.get_parameter(name).grad = gradients[name].float()
        muon.step()
        for name in parameters.by_muon:
            torch.testing.assert_close(model.get_parameter(name), plain.get_parameter(name), rtol=1e-4, atol=1e-5)
    for name, parameter in model.named_parameters():
        assert (name in parameters.by_muon) or torch.equal(parameter, other.get_parameter(name)), "all else is AdamW's"


@pytest.mark.parametrize(("limit", "factor"), [(1.0, None), (1e6, 1.0)])
def test_gradients_are_shortened_to_the_limit_and_never_lengthened(limit, factor):
    model, _, adam = optimiser(clip_norm=limit)
    adam.begin(0)
    before = give_gradients(model, 0)
    norm = float(adam.reduce(Share()))
    assert norm > 1
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad.double(), before[name] * (factor or limit / norm), rtol=1e-5, atol=1e-7
        )


def test_gradients_begin_at_zero_in_every_step():
    model, _, adam = optimiser()
    for step in range(2):
        adam.begin(0)
        assert all(not parameter.grad.any() for parameter in model.parameters())
        give_gradients(model, step)


def test_groups_are_frozen_for_so_many_epochs_and_thaw():
    model, _, adam = optimiser(freeze={"head": 2})
    for epoch, frozen in enumerate([True, True, False]):
        assert adam.frozen(epoch) == (frozenset({"head"}) if frozen else frozenset())
        adam.begin(epoch)
        assert [p.requires_grad for p in model[3].parameters()] == [not frozen] * 2
        assert [p.grad is None for p in model[3].parameters()] == [frozen] * 2
        assert all(p.requires_grad for p in model[0].parameters())
    assert adam.rates(7) == {"body": pytest.approx(0.1 * cosine(7 / 12)), "head": 0.0}


def test_the_moving_average_is_the_one_of_its_formula_and_is_lent_for_a_while():
    model, parameters, _ = optimiser()
    average = MovingAverage(parameters, decay=0.9)
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(3):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 1
        average.update()
        for name, parameter in model.named_parameters():
            expected[name] += 0.1 * (parameter.detach() - expected[name])
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    with average.in_place():
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.detach(), expected[name])
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, own[name])
        torch.testing.assert_close(average.tensors()[name], expected[name])


def test_what_never_trains_must_not_be_in_a_group_and_what_trains_must_be_float32():
    objective = Toy({})
    model = objective.build()
    model[0].bias.requires_grad_(False)
    with pytest.raises(AssertionError, match=r"without requires_grad: 0\.bias"):
        Parameters(objective, model, config())
    with pytest.raises(AssertionError, match=r"must be float32: 0\.bias, 0\.weight, 3\.bias"):
        Parameters(objective, objective.build().half(), config())


def test_a_row_of_the_history_is_the_mean_over_all_samples_since_the_last_one():
    interval = Interval()
    interval.add({"a": 6.0, "b": 1.0}, {"a": 2.0, "b": 4.0}, norm=3.0)
    interval.add({"a": 4.0, "b": 1.0}, {"a": 8.0, "b": 0.0}, norm=5.0)
    expected = {"loss": 0.5 * 1.0 + 0.5, "terms": {"a": 1.0, "b": 0.5}, "gradient_norm": 4.0}
    assert Interval(interval.sums).row({"a": 0.5}) == expected, "sums come back from a checkpoint"
    assert interval.row({"a": 0.5}) == expected
    interval.add({"a": 9.0}, {"a": 0.0}, norm=7.0)
    assert interval.row({}) == {"loss": 0.0, "terms": {"a": 0.0}, "gradient_norm": 7.0}


def test_a_term_counts_once_where_no_coefficient_is_named():
    assert total_loss({"a": 2.0, "b": 3.0, "c": 5.0}, {"a": 0.5, "c": 0.0}) == 4.0
    assert total_loss({}, {}) == 0


def test_rows_are_kept_by_kind_and_cut_back(tmp_path):
    history = History(tmp_path / "deep" / "history.jsonl")
    history.append("training", {"step": 1})
    size = history.sync()
    history.append("evaluation", {"step": 2})
    assert (history.rows("training"), history.rows("evaluation")) == ([{"step": 1}], [{"step": 2}])
    again = History(tmp_path / "deep" / "history.jsonl")
    again.cut(size)
    assert (again.rows("training"), again.rows("evaluation")) == ([{"step": 1}], [])
    again.publish(tmp_path)
    assert json.loads((tmp_path / "history.json").read_text()) == {"training": [{"step": 1}], "evaluation": []}


@pytest.mark.parametrize("count", [1, 4095, 4096, 3_000_001])
def test_the_norm_of_a_long_gradient_is_exact(count):
    gradient = torch.randn(count, generator=torch.Generator().manual_seed(0))
    assert float(norm_of(gradient)) == pytest.approx(float(gradient.double().square().sum().sqrt()), rel=1e-7)
