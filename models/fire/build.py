"""Builds fire models from their configuration, and says how their parameters are trained."""

from __future__ import annotations

import torch
from torch import nn

from configs.fire_models import FireModel
from models.build import build
from models.fire.batch import FireSpec


def build_fire_model(config: FireModel, spec: FireSpec) -> nn.Module:
    """Return a model whose forward(FireBatch) gives a FireOutput; `CopyLast` has no parameters.

    Raises ValueError where the patch does not fit the decoder, or where pretrained weights cannot be loaded.
    """
    model: nn.Module = build(config, spec)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def parameter_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return every parameter exactly once: "spatial" are those that came pretrained, "temporal" all others.

    What starts at random needs the higher learning rate and must never be frozen, be it a transformer, a decoder
    without pretraining, or the adapted stem of a pretrained encoder; so only a decoder's
    `pretrained_modules` are "spatial", and that group is empty where nothing came pretrained.
    """
    modules: list[nn.Module] = [
        m for part in model.modules() for m in getattr(part, "pretrained_modules", lambda: [])()
    ]
    spatial = {id(p): p for module in modules for p in module.parameters()}
    return {"temporal": [p for p in model.parameters() if id(p) not in spatial], "spatial": list(spatial.values())}
