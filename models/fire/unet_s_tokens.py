"""A U-Net on patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.fire_models import UNetSTokensConfig
from models.fire.batch import FireBatch, FireSpec
from models.fire.masked_layers import ConvLayer, DownPath, Pointwise, UpPath, mask_pyramid
from models.fire.output import FireOutput, monotone
from models.fire.pixel_inputs import WIND_CHANNELS, wind_vectors


class UNetSTokens(nn.Module):
    """A U-Net on the patch grid; its logits are repeated over the pixels of their patch."""

    def __init__(self, config: UNetSTokensConfig, spec: FireSpec) -> None:
        super().__init__()
        widths = config.widths
        self.patch = spec.patch
        self.wind_scale = spec.wind_scale
        self.stem = ConvLayer(2 + spec.static + WIND_CHANNELS, widths[0])
        self.down = DownPath(widths, config.depth)
        self.up = UpPath(widths, widths[:-1], config.depth)
        self.head = Pointwise(widths[0], 1)

    def forward(self, batch: FireBatch) -> FireOutput:
        """Return logits (B, H, W), constant over the open pixels of a patch."""
        valid = batch.token_valid.unflatten(1, batch.grid).unsqueeze(1)
        x = self._inputs(batch).masked_fill(~valid, 0.0)
        masks = mask_pyramid(valid.to(x.dtype), len(self.down.stages))
        x = self.up(self.down(self.stem(x, masks[0]), masks), masks)
        logits = F.interpolate(self.head(x), scale_factor=self.patch, mode="nearest").squeeze(1)
        return FireOutput(monotone(logits, batch))

    def _inputs(self, batch: FireBatch) -> Tensor:
        """Return (B, C, Gy, Gx): last two frames, static terrain and wind."""
        frames = F.pad(batch.fire.masked_fill(~batch.time_valid.unsqueeze(-1), 0.0), (0, 0, 1, 0))[:, -2:]
        wind = wind_vectors(batch, self.wind_scale).unsqueeze(-1).expand(-1, -1, batch.fire.shape[-1])
        return torch.cat([frames, batch.static.transpose(1, 2), wind], 1).unflatten(2, batch.grid)
