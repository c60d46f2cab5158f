"""Steps of the loop against steps of plain, unfused AdamW, and of Muon: every objective, weight and device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from configs.training import Execution, TrainingConfig
from models.language.hrm_act import HrmAct
from models.language.interface import LanguageModel
from tasks.training.loop import BUILD, STEP, Trainer, seed_everything
from tasks.training.objective import Moment, Objective
from tasks.training.optimiser import Optimiser, inner_matrices, learning_rate
from tasks.training.share import Share
from tasks.training.transfer import MicroBatch
from tests.objectives.cases import CASES, Data
from tests.training.plain_muon import PlainMuon

STEPS = 4
Gradients = dict[str, Tensor]


def trainer_of(objective: Objective, settings: TrainingConfig, device: torch.device, scratch: Path) -> Trainer:
    return Trainer(objective, settings, Execution(device=device.type), Share(device=device), scratch)


class Plain:
    """A training as one would write it down: AdamW and Muon, tensor after tensor, nothing shared, nothing flat."""

    def __init__(self, objective: Objective, settings: TrainingConfig, device: torch.device) -> None:
        seed_everything(settings.seed, BUILD)
        self.objective, self.settings, self.model = objective, settings, objective.build().to(device)
        inner = {id(self.model.get_parameter(name)) for name in inner_matrices(self.model)}
        groups, matrices = [], []
        for name, parameters in objective.groups(self.model).items():
            shared = {"name": name, "weight_decay": settings.weight_decay}
            matrices.append(shared | {"params": [p for p in parameters if id(p) in inner]})
            for decay in (True, False):
                members = [p for p in parameters if (p.ndim >= 2) == decay]
                if settings.matrices == "muon":
                    members = [p for p in members if id(p) not in inner]
                groups.append(shared | {"params": members, "weight_decay": settings.weight_decay * decay})
        adam = torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, foreach=False, fused=False)
        self.optimisers: list[torch.optim.Optimizer] = [adam]
        if settings.matrices == "muon":
            self.optimisers.append(PlainMuon(matrices, {"lr": 0.0}))
        self.average = {name: p.detach().clone() for name, p in self.model.named_parameters() if p.requires_grad}
        self.group_of = {id(p): name for name, members in objective.groups(self.model).items() for p in members}
        self.model.train()

    def gradients(self, step: int, micro_batches: Sequence[MicroBatch]) -> Gradients:
        """Return the gradient of a step, before clipping."""
        thaws = self.settings.freeze
        for parameter in self.model.parameters():
            parameter.grad = None
            if id(parameter) in self.group_of:
                parameter.requires_grad_(step >= thaws.get(self.group_of[id(parameter)], 0))
        weigh = self.objective.weigher()
        weights = [weigh(micro.batch) for micro in micro_batches]
        for k, micro in enumerate(micro_batches):
            seed = seed_everything(self.settings.seed, STEP, step, k, 0)
            self.objective.moment = Moment(step, step, STEPS, k, seed)
            losses = self.objective.losses(self.model, micro.batch)
            factors = self.objective.coefficients
            terms = [losses[t] * (factors.get(t, 1.0) / sum(w[t] for w in weights)) for t in sorted(losses)]
            torch.stack(terms).sum().backward()
        return {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}

    def update(self, step: int, gradients: Gradients) -> None:
        """Take a step along a gradient."""
        for name, parameter in self.model.named_parameters():
            parameter.grad = gradients[name].clone() if name in gradients else None
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm, foreach=False)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(self.settings, group["name"], step, 1)
            optimiser.step()
        decay = self.settings.ema_decay or 0.0
        for name, average in self.average.items():
            average.mul_(decay).add_((1 - decay) * self.model.get_parameter(name).detach())


def recorded(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> list[Gradients]:
    """Return a list that gets the gradients of each of a trainer's steps, before clipping."""
    found: list[Gradients] = []
    reduce = Optimiser.reduce

    def record(self: Optimiser, share: Share) -> Tensor:
        named = trainer.model.named_parameters()
        found.append({name: p.grad.detach().clone() for name, p in named if p.grad is not None})
        return reduce(self, share)

    monkeypatch.setattr(Optimiser, "reduce", record)
    return found


def distance(a: Tensor, b: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))


@pytest.mark.parametrize("name", CASES)
def test_steps_are_those_of_plain_optimisers(name, data: Data, device, tmp_path, monkeypatch):
    case = CASES[name]
    settings = case.settings(epochs=STEPS)
    ours = trainer_of(case.objective(data), settings, device, tmp_path)
    plain = Plain(case.objective(data), settings, device)
    moved: set[str] = set()
    inner = inner_matrices(plain.model) if settings.matrices == "muon" else frozenset()
    gradients = recorded(ours, monkeypatch)
    ours.model.train()
    for step, micro_batches in enumerate(ours.batches(0, STEPS)):
        expected = plain.gradients(step, micro_batches)
        ours.step(micro_batches)
        for n, gradient in gradients[-1].items():
            other = expected.get(n, torch.zeros_like(gradient))
            if device.type == "cpu":
                assert torch.equal(gradient, other), f"gradient of {n} at step {step}"
            else:  # a GPU adds up in no fixed order
                assert distance(gradient, other) < 1e-3 or gradient.abs().max() < 1e-6, f"gradient of {n}, step {step}"
            moved |= {n} if gradient.any() else set()
        before = {n: plain.model.get_parameter(n).detach().clone() for n in inner}
        plain.update(step, gradients[-1])
        for n, parameter in ours.model.named_parameters():
            theirs = plain.model.get_parameter(n).detach()
            if n in inner:  # what hardly has a gradient is moved as far as all else, so its rounding is too
                rounded = 1e-3 if device.type == "cpu" else 0.2  # a GPU iterates in bfloat16
                assert (parameter - theirs).norm() <= rounded * (theirs - before[n]).norm(), f"{n} after step {step}"
            else:
                assert distance(parameter.detach(), theirs) <= 1e-6, f"{n} after step {step}"
            theirs.copy_(parameter.detach())  # rounding must not grow over the steps
        for n, average in ours.average.tensors().items() if ours.average else ():
            assert distance(average, plain.average[n]) <= 1e-6, f"moving average of {n} after step {step}"
    assert moved >= {n for n in plain.average if "relative_position" not in n}, "each weight has had a gradient"


@pytest.mark.parametrize("name", CASES)
def test_muon_moves_layers_within_a_model_and_no_embedding_or_head(name, data: Data):
    model = CASES[name].objective(data).build()
    inner = inner_matrices(model)
    assert {id(p) for n, p in model.named_parameters() if n in inner and p.ndim == 2}, "there are such layers"
    others = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    others += [head for module in model.modules() if isinstance(module, LanguageModel) for head in module.heads]
    apart = {id(p) for module in others for p in module.parameters()}
    assert not [n for n in inner if id(model.get_parameter(n)) in apart]
    assert all(model.get_parameter(n).ndim == 2 for n in inner if model.get_parameter(n).requires_grad)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("fire")])
def test_the_memory_layout_of_weights_changes_no_gradient(name, data: Data, tmp_path):
    case = CASES[name]
    one = trainer_of(case.objective(data), case.settings(), torch.device("cpu"), tmp_path)
    (micro, *_) = next(one.batches(0, 1))
    found = []
    for layout in (torch.channels_last, torch.contiguous_format):
        for module in one.model.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=layout)
        one.model.eval().zero_grad()
        torch.stack(list(one.objective.losses(one.model, micro.batch).values())).sum().backward()
        found.append({n: p.grad.clone() for n, p in one.model.named_parameters() if p.grad is not None})
    scale = max(float(gradient.abs().max()) for gradient in found[0].values())
    for n, gradient in found[0].items():
        torch.testing.assert_close(found[1][n], gradient, rtol=1e-3, atol=1e-5 * scale)


def test_which_sequences_think_on_is_drawn_by_the_key_of_the_micro_batch(data, tmp_path, monkeypatch):
    case, drawn = CASES["language: hrm_act"], []
    act_loss = HrmAct.act_loss

    def watched(self, *arguments, generator, **more):
        drawn.append(generator.initial_seed())
        return act_loss(self, *arguments, generator=generator, **more)

    monkeypatch.setattr(HrmAct, "act_loss", watched)
    for seed in (0, 1):
        objective = case.objective(data)
        one = trainer_of(objective, case.settings(epochs=2, seed=seed), torch.device("cpu"), tmp_path / str(seed))
        one.model.train()
        one.step(next(one.batches(0, 1)))
        assert drawn[-1] == objective.moment.seed
    assert drawn[0] != drawn[-1]
