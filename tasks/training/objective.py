"""Objectives: what a training is about. The loop knows no model, no data and no loss but through one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from models.build import imported
from tasks.training.loader import Source, Weigher
from tasks.training.release import Release
from tasks.training.share import Share


@dataclass(frozen=True, slots=True)
class Moment:
    """Where the loop stands when it calls an objective."""

    epoch: int
    step: int
    """Optimiser steps done before this one."""
    steps: int
    """Optimiser steps of the whole training."""
    micro_batch: int
    seed: int
    """Key of what is drawn for this micro-batch: of the training's seed, the step, the micro-batch and the rank."""


class Objective(ABC):
    """What to train, on what, towards what; made in every rank from its JSON configuration.

    One step of the loop minimises

        sum over terms of coefficients[term] * sum(losses[term]) / sum(weights[term])

    where both sums run over all micro-batches of all ranks. So a loss is a mean over whatever `weights` counts
    (pixels, tokens, samples) of the whole global batch, however unevenly the ranks share it.
    """

    RELEASE: ClassVar[type[Release]]
    """What reads the models that are released."""
    PREVIEWS: ClassVar[str] = ""
    """`module:function` that returns PNG pictures by name from (objective, model), called by rank 0 after an
    evaluation; none where it is empty. It is a name, for pictures are in no key: the module is one of its own, and says
    `IN_KEY = False`."""
    WATCHED: ClassVar[str] = ""
    """`module:function` likewise, that returns figures for W&B alone, named `section/figure`."""
    coefficients: Mapping[str, float] = {}
    """Factor of each loss term, 1 where it is not named; a term with 0 is only reported."""
    moment: Moment = Moment(0, 0, 0, 0, 0)
    """Set by the loop before each `losses`."""

    @abstractmethod
    def __init__(self, config: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the model with its initial weights, on the CPU; random numbers are keyed by the seed already.

        Parameters that never train have `requires_grad` False.
        """

    def compile(self, model: nn.Module) -> None:
        """Let `torch.compile` make kernels of whatever gains by it; all of the forward pass by default."""
        model.compile()

    def groups(self, model: nn.Module) -> dict[str, list[nn.Parameter]]:
        """Return named groups that hold every parameter with `requires_grad` exactly once."""
        return {"all": [p for p in model.parameters() if p.requires_grad]}

    @abstractmethod
    def source(self, part: str) -> Source:
        """Return the samples of a part; the loop asks for `train` alone."""

    @staticmethod
    @abstractmethod
    def collate(samples: Sequence[Any]) -> Any:
        """Make a batch of samples: tensors in dicts, lists, tuples and dataclasses.

        A static method, for it runs in the loader processes.
        """

    @abstractmethod
    def weigher(self) -> Weigher:
        """Return the function that gives a batch's weights. They are a property of the data: it has no model."""

    @abstractmethod
    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Return per loss term the differentiable SUM over a batch on the device; the same terms as the weights.

        A GPU works far behind its program, so nothing here may wait for it: no `.item()`, no `.tolist()`, no truth of
        a tensor, no index by a mask.
        """

    def remark(self, step: int, means: Mapping[str, float]) -> str:
        """Return what people should know of the loss terms' means at a step, if anything.

        Called for every step in order, but some steps later.
        """
        return ""

    @abstractmethod
    def evaluate(self, model: nn.Module, share: Share) -> dict[str, float]:
        """Return the metrics of a model in evaluation mode, without gradients.

        All ranks call it; `share` splits the work and gathers the results. Rank 0's values count.
        """

    @abstractmethod
    def release_config(self) -> dict[str, Any]:
        """Return, as JSON, what `RELEASE.restore` needs to use the model again."""

    def stored(self, name: str) -> bool:
        """Whether an entry of the model's state dict belongs in checkpoints and releases.

        False for frozen backbones that `build` restores by itself.
        """
        return True

    def state_dict(self) -> dict[str, Tensor]:
        """Return this rank's own training state, such as a recurrent carry; it is part of every checkpoint."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` returned; the tensors are on the CPU."""
        assert not state, "an objective with a state must be able to load it"


def make_objective(path: str, config: Mapping[str, Any]) -> Objective:
    """Return the objective that an import path `module:Class` names, made from its configuration."""
    objective = imported(path)(config)
    assert isinstance(objective, Objective), f"{path} is no Objective"
    return objective
