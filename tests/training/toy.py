"""A small objective: points with labels, a tiny network with dropout, two groups, two loss terms, a state."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from tasks.training.loader import Weigher, ordered_batches
from tasks.training.objective import Objective
from tasks.training.release import Release

SAMPLES = 48


class Numbers:
    """Points with a noise that depends on the seed, and labels; the number of valid elements differs by sample."""

    def __len__(self) -> int:
        return SAMPLES

    def sample(self, index: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        fixed = torch.Generator().manual_seed(index)
        noise = torch.Generator().manual_seed(seed)
        x = torch.randn(6, 4, generator=fixed) + 0.1 * torch.randn(6, 4, generator=noise)
        valid = torch.arange(6) <= index % 6
        if index == int(os.environ.get("TOY_BAD_SAMPLE", "-1")):
            x = x * torch.nan
        return x, (x.sum(-1) > 0).float(), valid


def weigh(batch: Any) -> dict[str, float]:
    return {"bce": float(batch[2].sum()), "decay": float(len(batch[0]))}


def network(config: Mapping[str, Any]) -> nn.Sequential:
    width = config.get("width", 8)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Dropout(config.get("dropout", 0.2)), nn.Linear(width, 1))


@dataclass(frozen=True)
class ToyRelease(Release):
    network: nn.Sequential
    width: int | None

    @classmethod
    def restore(cls, model: Mapping[str, Any], weights: Mapping[str, Any], folder: Path) -> Self:
        return cls(network(model), model.get("width"))


class Toy(Objective):
    """A tiny MLP with dropout, in two groups, with two loss terms of different denominators."""

    RELEASE = ToyRelease
    PREVIEWS = "tests.training.toy:square"
    WATCHED = "tests.training.toy:biases"
    coefficients = MappingProxyType({"decay": 0.1})

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.calls = torch.zeros(())

    def build(self) -> nn.Module:
        return network(self.config)

    def groups(self, model: nn.Module) -> dict[str, list[nn.Parameter]]:
        return {"body": list(model[0].parameters()), "head": list(model[3].parameters())}

    def source(self, part: str) -> Numbers:
        return Numbers()

    @staticmethod
    def collate(samples: Any) -> Any:
        return tuple(torch.stack(parts) for parts in zip(*samples, strict=True))

    def weigher(self) -> Weigher:
        return weigh

    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        x, y, valid = batch
        self.calls += 1
        time.sleep(float(os.environ.get("TOY_PAUSE", "0")))
        logits = model(x).squeeze(-1).float()
        loss = nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="none")
        return {"bce": (loss * valid).sum(), "decay": logits.square().mean(1).sum()}

    def evaluate(self, model: nn.Module, share: Any) -> dict[str, float]:
        hits = [(model(x).squeeze(-1) > 0) == (y > 0) for x, y, _ in ordered_batches(share, Numbers(), self.collate, 8)]
        rows = share.gather(torch.cat(hits).float())
        assert len(rows) == SAMPLES
        return {"accuracy": float(rows.mean()), "calls": float(self.calls)}

    def release_config(self) -> dict[str, Any]:
        return self.config

    def state_dict(self) -> dict[str, Tensor]:
        return {"calls": self.calls}

    def load_state_dict(self, state: Any) -> None:
        self.calls = state["calls"].reshape(())


def undrawable(objective: Toy, model: nn.Module) -> dict[str, bytes]:
    raise RuntimeError("no ink")


def square(objective: Toy, model: nn.Module) -> dict[str, bytes]:
    """Return a grey square."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (8, 8), int(objective.calls) % 256).save(buffer, "png")
    return {"square": buffer.getvalue()}


def biases(objective: Toy, model: nn.Module) -> dict[str, float]:
    """Return the largest bias of the head."""
    return {"biases/largest": float(model[3].bias.abs().max())}
