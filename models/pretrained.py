"""Pretrained weights from the Hugging Face hub or a local folder, and norms that padding cannot shift."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, PreTrainedModel

Model = TypeVar("Model", bound=PreTrainedModel)


def load_pretrained(
    architecture: type[Model], source: str, needed: tuple[str, ...], within: str | None = None
) -> Model:
    """Return `architecture` with the weights of `source`, a hub id or a local folder, in float32.

    Works offline where the weights are in the folder or in the hub's cache. Raises ValueError where `source` cannot be
    read, is another kind of model, or lacks weights whose names start with one of `needed`. `within` is another kind of
    model that has this one as a part.
    """
    loaded: Any
    kind = architecture.config_class.model_type  # type: ignore[union-attr]
    try:
        found = AutoConfig.from_pretrained(source).model_type
        if found not in (kind, within):
            raise ValueError(f"pretrained {source} is a {found} model; name a {kind} model")
        loaded = architecture.from_pretrained(source, output_loading_info=True, dtype=torch.float32)
    except OSError as error:
        raise ValueError(
            f"pretrained {source} cannot be loaded; name a folder written by save_pretrained, or a hub id that is "
            "cached or can be reached"
        ) from error
    model, report = loaded
    missing = sorted(key for key in report["missing_keys"] if key.startswith(needed))
    if missing:
        raise ValueError(f"pretrained {source} lacks {missing[0]} (and {len(missing) - 1} more); name a whole model")
    return model


class FrozenBatchNorm(nn.Module):
    """Batch norm that keeps the statistics it came with, in training too; scale and shift are learned.

    Batch statistics would depend on batch mates and on padding. Started at random it only scales and shifts.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.register_buffer("mean", norm.running_mean)
        self.register_buffer("variance", norm.running_var)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised map."""
        return F.batch_norm(x, self.mean, self.variance, self.weight, self.bias, training=False, eps=self.eps)  # type: ignore[arg-type]


def freeze_statistics(module: nn.Module) -> None:
    """Replace every batch norm inside by a `FrozenBatchNorm`."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm(child))
        else:
            freeze_statistics(child)
