"""The baseline that learns nothing."""

from __future__ import annotations

import torch
from torch import nn

from configs.fire_models import CopyLastConfig
from models.fire.batch import FireBatch, FireSpec
from models.fire.output import BURNT_LOGIT, FireOutput, monotone


class CopyLast(nn.Module):
    """The next frame is the last one. It has no parameters."""

    def __init__(self, config: CopyLastConfig, spec: FireSpec) -> None:
        super().__init__()

    def forward(self, batch: FireBatch) -> FireOutput:
        """Return +-`BURNT_LOGIT`."""
        return FireOutput(monotone(torch.full_like(batch.burnt, -BURNT_LOGIT, dtype=torch.float32), batch))
