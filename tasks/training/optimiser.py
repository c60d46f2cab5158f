"""AdamW and Muon over named groups that may be frozen, their learning rates, and a moving average of the weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from configs.training import TrainingConfig
from models.ternary import QuantisedEmbedding, QuantisedLinear, RowLinear
from tasks.training.muon import Muon
from tasks.training.objective import Objective
from tasks.training.share import Share

PIECE = 4096
"""Entries of a vector whose squares float32 adds up exactly enough."""


class Parameters:
    """The trainable parameters of a model by name, and the group of each."""

    def __init__(self, objective: Objective, model: nn.Module, config: TrainingConfig) -> None:
        groups = objective.groups(model)
        if groups.keys() != config.learning_rates.keys():
            raise ValueError(
                f"learning_rates has the groups {', '.join(sorted(config.learning_rates))}, but the model has "
                f"{', '.join(sorted(groups))}; name each of them once"
            )
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        group_of: dict[str, str] = {}
        for group, parameters in groups.items():
            for parameter in parameters:
                name = names[id(parameter)]
                assert name not in group_of, f"parameter {name} is in the groups {group_of[name]} and {group}"
                group_of[name] = group
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        missing, surplus = trainable.keys() - group_of.keys(), group_of.keys() - trainable.keys()
        assert not missing, f"in no parameter group, so never trained: {', '.join(sorted(missing))}"
        assert not surplus, f"in a parameter group, but without requires_grad: {', '.join(sorted(surplus))}"
        half = [name for name, p in trainable.items() if p.dtype != torch.float32]
        assert not half, f"weights that train must be float32: {', '.join(sorted(half))}"
        self.named: dict[str, nn.Parameter] = trainable
        self.group_of = group_of
        self.by_muon = inner_matrices(model) & trainable.keys() if config.matrices == "muon" else frozenset()

    def in_group(self, group: str, *, by_muon: bool) -> list[nn.Parameter]:
        """Return those of a group's parameters that Muon moves, or those that AdamW does, in the model's order."""
        chosen = [name for name in self.named if self.group_of[name] == group and (name in self.by_muon) == by_muon]
        return [self.named[name] for name in chosen]


def inner_matrices(model: nn.Module) -> frozenset[str]:
    """Return the names of linear layers' matrices, attention's among them.

    Not of heads, the layers whose name ends so, nor of what an embedding shares: there rows are things, a token or a
    class, each of which is learned from as often as it comes.
    """
    tables, linears = (nn.Embedding, QuantisedEmbedding), (nn.Linear, QuantisedLinear, RowLinear)
    embedded = {id(module.weight) for module in model.modules() if isinstance(module, tables)}
    found = set()
    for path, module in model.named_modules():
        if isinstance(module, linears) and not path.endswith("head") and id(module.weight) not in embedded:
            found.add(f"{path}.weight".removeprefix("."))
        elif isinstance(module, nn.MultiheadAttention):
            found.add(f"{path}.in_proj_weight".removeprefix("."))
    return frozenset(found)


def learning_rate(config: TrainingConfig, group: str, step: int, steps_per_epoch: int) -> float:
    """Return a group's learning rate for the update at `step` (from 0).

    A linear warm-up and a cosine that ends at the training's last step; both start when the group thaws. A frozen
    group has 0.
    """
    first = config.freeze.get(group, 0) * steps_per_epoch
    total = config.epochs * steps_per_epoch - first
    step -= first
    if step < 0:
        return 0.0
    peak = config.learning_rates[group]
    warmup = min(config.warmup_steps, total)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return peak * (config.final_lr_share + (1 - config.final_lr_share) * cosine)


def norm_of(flat: Tensor) -> Tensor:
    """Return the Euclidean norm of a long vector.

    Added up in one go, float32 loses half a percent of 60 million entries on a CPU. So the norms of short pieces are
    added up in float64.
    """
    whole = flat[: flat.numel() // PIECE * PIECE].view(-1, PIECE)
    rest = flat[whole.numel() :]
    parts = torch.cat([torch.linalg.vector_norm(whole, dim=1), torch.linalg.vector_norm(rest)[None]])
    return torch.linalg.vector_norm(parts, dtype=torch.float64).to(flat.dtype)


class Optimiser:
    """AdamW, and Muon where it is asked for, whose learning rates, frozen groups and gradients follow from the step.

    Gradients live in one flat buffer in the model's order of parameters, each in the memory layout of its parameter,
    for the fused update walks memory. They are summed over ranks by one `all_reduce` after the last micro-batch.
    DistributedDataParallel is not used: its buckets follow the order in which gradients became ready in that process,
    so a resumed run adds up in another order than an undisturbed one (measured with 4 ranks), it averages where uneven
    denominators need a sum, and it needs to be told of parameters that are frozen or unused. Here an unused parameter
    simply has a gradient of zero.
    """

    def __init__(self, parameters: Parameters, config: TrainingConfig, steps_per_epoch: int) -> None:
        self._parameters, self._config, self._steps_per_epoch = parameters, config, steps_per_epoch
        self._frozen: frozenset[str] | None = None
        self._gradients = torch.empty(0)
        groups, inner = [], []
        for group in config.learning_rates:
            members = parameters.in_group(group, by_muon=False)
            weights, others = [p for p in members if p.ndim >= 2], [p for p in members if p.ndim < 2]
            groups.append({"params": weights, "name": group, "weight_decay": config.weight_decay})
            groups.append({"params": others, "name": group, "weight_decay": 0.0})
            matrices = parameters.in_group(group, by_muon=True)
            inner.append({"params": matrices, "name": group, "weight_decay": config.weight_decay})
        self.adam = torch.optim.AdamW(groups, lr=0.0, betas=config.betas, fused=True)
        self.muon = Muon(inner)
        for name, parameter in parameters.named.items():
            if name in parameters.by_muon:
                self.muon.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
                continue
            self.adam.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }

    def _state(self, name: str) -> dict[str, Tensor]:
        """Return what is kept of a parameter from one step to the next."""
        optimiser = self.muon if name in self._parameters.by_muon else self.adam
        return optimiser.state[self._parameters.named[name]]

    def frozen(self, epoch: int) -> frozenset[str]:
        """Return the groups that are frozen in an epoch."""
        return frozenset(group for group, epochs in self._config.freeze.items() if epoch < epochs)

    def begin(self, epoch: int) -> bool:
        """Make ready for a step: freeze and thaw, and clear all gradients; say whether other weights train now."""
        frozen = self.frozen(epoch)
        if changed := frozen != self._frozen:
            self._frozen = frozen
            for name, parameter in self._parameters.named.items():
                parameter.requires_grad_(self._parameters.group_of[name] not in frozen)
            self._lay_out()
        self._gradients.zero_()
        return changed

    def _lay_out(self) -> None:
        """Let the gradients of all parameters that train be views of one flat buffer."""
        members = [p for p in self._parameters.named.values() if p.requires_grad]
        for parameter in self._parameters.named.values():
            parameter.grad = None
        self._gradients = torch.zeros(sum(p.numel() for p in members), device=members[0].device)
        for parameter, part in zip(members, self._gradients.split([p.numel() for p in members]), strict=True):
            parameter.grad = part.as_strided(parameter.shape, parameter.stride(), part.storage_offset())
        self._check_layout()

    def _check_layout(self) -> None:
        """See that gradient and moments lie in memory as their weight does, without gaps."""
        for name, parameter in self._parameters.named.items():
            span = 1 + sum(
                (size - 1) * stride for size, stride in zip(parameter.shape, parameter.stride(), strict=True)
            )
            assert span == parameter.numel(), f"{name} has gaps or overlaps in memory"
            for tensor in (parameter.grad, *self._state(name).values()):
                alike = tensor is None or tensor.ndim == 0 or tensor.stride() == parameter.stride()
                assert alike, f"{name} is laid out otherwise"

    def reduce(self, share: Share) -> Tensor:
        """Sum the gradients over all ranks, clip them by their global norm, and return the norm before that."""
        share.sum(self._gradients)
        norm = norm_of(self._gradients)
        if self._config.clip_norm is not None:
            self._gradients.mul_((self._config.clip_norm / norm).clamp(max=1.0))
        return norm

    def step(self, step: int) -> None:
        """Update the weights with the learning rates of this step."""
        rates = self.rates(step)
        for optimiser in (self.adam, self.muon):
            for group in optimiser.param_groups:
                group["lr"] = rates[group["name"]]
            optimiser.step()

    def rates(self, step: int) -> dict[str, float]:
        """Return every group's learning rate at a step."""
        groups = self._config.learning_rates
        return {group: learning_rate(self._config, group, step, self._steps_per_epoch) for group in groups}

    def tensors(self) -> dict[str, Tensor]:
        """Return the state by name; writing into the tensors changes the state."""
        self._check_layout()
        return {f"{name}.{part}": value for name in self._parameters.named for part, value in self._state(name).items()}


class MovingAverage:
    """Exponential moving average of all trainable parameters: average += (1 - decay) * (weight - average).

    Buffers, such as the statistics of batch normalisation, are not averaged; the model keeps its own.
    """

    def __init__(self, parameters: Parameters, decay: float) -> None:
        self._parameters, self._decay = parameters.named, decay
        self._average = {name: p.detach().clone() for name, p in parameters.named.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        torch._foreach_lerp_(
            list(self._average.values()), [p.detach() for p in self._parameters.values()], 1 - self._decay
        )

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the averaged weights for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self._average[name] = self._average[name], parameter.data

    def tensors(self) -> Mapping[str, Tensor]:
        """Return the averages by name; writing into the tensors changes them."""
        return self._average
